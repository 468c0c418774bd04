"""Signed, causal contributions of units to logits, and evidence that contradicts a prediction."""
