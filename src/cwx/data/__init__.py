"""Labelled images: the sources they come from, and how `module` serves them."""
