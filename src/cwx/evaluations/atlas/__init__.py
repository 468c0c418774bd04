"""The atlas of neurons: every unit with its measures and its top images."""
