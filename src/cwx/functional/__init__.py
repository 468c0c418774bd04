"""The papers' mathematics: tensors in, tensors out. Imports torch alone."""
