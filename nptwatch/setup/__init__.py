"""How nptwatch is put on a machine: settings to begin with, and units of systemd."""
