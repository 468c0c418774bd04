"""What an image classifier has learned about each class, in pictures and numbers."""
