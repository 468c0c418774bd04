"""Optional steps of a study: adversary, dataset construction, fine-tuning, purification."""
