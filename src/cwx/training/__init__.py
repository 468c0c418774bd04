"""Trained networks: which ones a study needs, how they are trained, and where they are kept."""
