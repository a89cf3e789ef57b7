"""What an NPT checkpoint is: names, files, maths."""
