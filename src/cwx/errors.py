"""Errors that the user can correct, and suggestions for misspelt names.

Imports the standard library only, so that every module may import it.
"""

import difflib
import heapq
from collections.abc import Iterable

# Of more names, only those with the most pairs of letters in common are compared; of a longer
# name, only its start.
_MANY, _LONG = 2000, 100


class UserError(ValueError):
    """Wrong input or settings; the message is one line and names the remedy."""


def closest(given: str, known: Iterable[str], count: int = 3, *, cutoff: float = 0.0) -> list[str]:
    """At most `count` of the names `known`, the most similar to `given` first.

    Args:
        cutoff: the minimum similarity, from 0 (nothing in common) to 1 (equal).

    >>> closest("shp", ["ship", "dog", "sheep"], 2)
    ['ship', 'sheep']
    """
    names = list(known)
    if len(names) > _MANY:
        pairs = _letter_pairs(given)
        # The comparison of sequences takes 0.1 ms a name.
        names = heapq.nlargest(_MANY, names, key=lambda name: len(pairs & _letter_pairs(name)))
    return difflib.get_close_matches(given, names, count, cutoff)


def _letter_pairs(name: str) -> set[str]:
    return {name[index : index + 2] for index in range(min(len(name), _LONG))}


def did_you_mean(
    given: str, known: Iterable[str], otherwise: str, *, prefix: str = "", cutoff: float = 0.5
) -> str:
    """The remedy for an unknown name: the most similar known name or, without one, `otherwise`.

    Args:
        given: the unknown name.
        known: all valid names.
        prefix: text before the suggested name, such as its setting.
        cutoff: see `closest`.

    >>> did_you_mean("cifar", ["cifar10", "svhn"], "there are cifar10, svhn", prefix="data=")
    'did you mean data=cifar10?'
    >>> did_you_mean("x", ["cifar10", "svhn"], "there are cifar10, svhn")
    'there are cifar10, svhn'
    """
    near = closest(given, known, 1, cutoff=cutoff)
    return f"did you mean {prefix}{near[0]}?" if near else otherwise


def printable(value: object) -> str:
    r"""A value as one line of printable characters; all others are escaped.

    >>> printable("café.png"), printable("a\x1b[2J"), printable("\udcff.png")
    ('café.png', 'a\\x1b[2J', '\\udcff.png')
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
