"""Predictive power of patterns and perturbations, and attention on patterns (ISCP, §4)."""
