"""Labelled images: data sources, corruptions, and the data modules that serve batches."""
