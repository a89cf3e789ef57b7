"""The process that measures checkpoints: claim, diagnose, record."""
