"""Classes by name or index."""

from collections.abc import Sequence

from cwx.errors import closest


def class_index(given: str | int, classes: Sequence[str]) -> int:
    """The index of the class `given` by name or index.

    >>> class_index("dog", ["cat", "dog"])
    1

    Raises:
        ValueError: `classes` has no such class.
    """
    last = len(classes) - 1
    if isinstance(given, str):
        if given in classes:
            return list(classes).index(given)
        near = closest(given, classes)
        remedy = f"the nearest are {', '.join(near)}; give one of the names"
    elif 0 <= given <= last:
        return given
    else:
        remedy = "give a name"
    raise ValueError(
        f"there is no class {given!r} among the {len(classes)}: {remedy} or an index in 0-{last}"
    )
