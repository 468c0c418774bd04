"""Single predictions traced to neurons (Dong et al., §4)."""
