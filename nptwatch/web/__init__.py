"""What the daemon serves over HTTP: metrics for Prometheus, and whether it is well."""
