"""From a status change to a message in somebody's hands."""
