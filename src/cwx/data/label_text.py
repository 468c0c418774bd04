"""Labels of data sets as text: the name of a class, or its index."""

from typing import Any

from cwx.functional.class_names import composed

# Characters of a label.
_MAX_NAME = 1000


def as_label(label: Any) -> str:
    """A label as text.

    Raises:
        ValueError: it is neither a whole number nor a name of printable characters.
    """
    if isinstance(label, bool) or not isinstance(label, int | str):
        raise ValueError(f"{type(label).__name__} is neither a whole number nor a name")
    text = composed(str(label).strip()) if isinstance(label, str) else str(label)
    if not text:
        raise ValueError("it is empty")
    if not text.isprintable() or len(text) > _MAX_NAME:
        raise ValueError(f"it is no name of at most {_MAX_NAME} printable characters")
    return text
