"""Semantic level and class similarity of neurons' top images (Dong et al., §2.2)."""
