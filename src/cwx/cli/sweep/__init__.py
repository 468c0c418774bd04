"""Sweeps: jobs in processes of their own, what they share, and what became of each."""
