"""Short paths for display."""

from pathlib import Path


def below(folder: Path, above: Path) -> Path:
    """`folder` relative to `above` if it lies inside it, else unchanged."""
    return folder.relative_to(above) if folder.is_relative_to(above) else folder
