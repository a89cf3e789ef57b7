"""What is measured of a checkpoint, and what the numbers mean."""
