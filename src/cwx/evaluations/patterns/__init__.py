"""The predictive power of patterns and perturbations (ISCP, §4)."""
