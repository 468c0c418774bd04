"""Accuracy, representations and detection of adversarial images (Dong et al., §2.3-2.4)."""
