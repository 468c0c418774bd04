"""Importing networks that were trained elsewhere, from files that may be hostile."""
