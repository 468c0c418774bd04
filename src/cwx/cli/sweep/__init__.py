"""Sweeps: each job in its own process, with its fraction of cores and GPUs."""
