"""The file system: which checkpoints there are, when each is whole, and waking up for them."""
