"""Data sources: bundled, downloaded, or read from the user's folders."""
