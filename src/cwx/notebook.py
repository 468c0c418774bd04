"""Runs and explanations for notebooks."""
