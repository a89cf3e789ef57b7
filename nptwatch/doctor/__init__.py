"""Whether a machine has what a daemon with these settings needs, and what to do where not."""
