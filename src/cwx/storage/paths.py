"""Paths as a reader sees them."""

from pathlib import Path


def below(folder: Path, above: Path) -> Path:
    """A folder as seen from one above it; one that lies elsewhere as it is."""
    return folder.relative_to(above) if folder.is_relative_to(above) else folder
