"""Explanations of classes: images, patterns and perturbations; their files and drawings."""
