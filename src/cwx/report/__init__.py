"""HTML pages of run folders. Imports no method."""
