"""Errors that a user can put right, and the names that a user may have meant.

Imports the standard library alone, so that every other part may use it.
"""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something that the user gave is wrong; the message is one line and names the remedy."""


def closest(given: str, known: Iterable[str], count: int = 3, *, cutoff: float = 0.0) -> list[str]:
    """At most `count` of the known names, the most similar to `given` first.

    Args:
        cutoff: the least similarity, 0 (nothing in common) to 1 (equal).

    >>> closest("shp", ["ship", "dog", "sheep"], 2)
    ['ship', 'sheep']
    """
    return difflib.get_close_matches(given, list(known), count, cutoff)


def did_you_mean(
    given: str, known: Iterable[str], otherwise: str, *, prefix: str = "", cutoff: float = 0.5
) -> str:
    """The remedy for an unknown name: the most similar known name or, if none is, `otherwise`.

    Args:
        prefix: written before the known name, such as the setting that it is a value of.

    >>> did_you_mean("cifar", ["cifar10", "svhn"], "there are cifar10, svhn", prefix="data=")
    'did you mean data=cifar10?'
    >>> did_you_mean("x", ["cifar10", "svhn"], "there are cifar10, svhn")
    'there are cifar10, svhn'
    """
    near = closest(given, known, 1, cutoff=cutoff)
    return f"did you mean {prefix}{near[0]}?" if near else otherwise
