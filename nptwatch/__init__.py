"""nptwatch: measures NPT checkpoints beside training and says when one is good."""

__version__ = "0.1.0"
