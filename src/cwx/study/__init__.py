"""Running one study, from training experts to writing the report."""
