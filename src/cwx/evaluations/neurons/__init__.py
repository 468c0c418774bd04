"""What neurons respond to in real and in adversarial images (Dong et al., §2.2)."""
