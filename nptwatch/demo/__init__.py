"""A tiny Llama, a real NPT training run on it, and the real daemon watching that run."""
