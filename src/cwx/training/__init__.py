"""Trained networks: which networks a study needs, their training, and their storage."""
