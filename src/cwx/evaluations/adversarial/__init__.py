"""How networks see adversarial images (Dong et al., §2.3-2.4 and Table 1)."""
