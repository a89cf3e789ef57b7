"""The only place that builds things: the daemon, its workers and its chores."""
