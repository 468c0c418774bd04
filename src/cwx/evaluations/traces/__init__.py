"""Single predictions and their most influential neurons (Dong et al., §4)."""
