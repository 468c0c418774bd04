"""Explanations of classes: images, patterns and perturbations, how they are kept and drawn."""
