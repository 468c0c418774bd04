"""Pairs of neurons that people compare, and their agreement with LC (Dong et al., Appendix B)."""
