"""Evenly spaced indices: at most so many items of a sequence."""

import torch
from torch import Tensor


def evenly_spaced(length: int, count: int | None, *, device: torch.device | None = None) -> Tensor:
    """Indices ⌊i · length / n⌋ for i in 0 … n−1 with n = min(count, length), int64 ``[n]``.

    The first index is 0; the last item of the sequence is included only if n = length.

    Args:
        length: number of items.
        count: at most so many indices; ``None`` for all.
        device: where the indices are.

    >>> evenly_spaced(10, 4).tolist()
    [0, 2, 5, 7]
    >>> evenly_spaced(3, 5).tolist()
    [0, 1, 2]
    """
    n = length if count is None else min(count, length)
    return torch.arange(n, device=device) * length // max(n, 1)


def evenly_spaced_by_class(labels: Tensor, count: int | None) -> Tensor:
    """Increasing indices of at most `count` items, evenly spaced in the order of their classes.

    Each class has its share, in whatever order the items are: of labels that repeat, such as
    0, 1, …, 9, 0, 1, …, evenly spaced items would be of few classes, and of a sorted sequence the
    first items as well.

    Args:
        labels: class indices ``[n]``.
        count: at most so many indices; ``None`` for all.

    >>> evenly_spaced_by_class(torch.tensor([0, 1, 0, 1, 0, 1, 0, 1]), 4).tolist()
    [0, 1, 4, 5]
    """
    chosen = evenly_spaced(len(labels), count, device=labels.device)
    return labels.argsort(stable=True)[chosen].sort().values


def evenly_spaced_with_ends(length: int, count: int) -> Tensor:
    """Indices round(i · (length − 1) / (n − 1)), n = min(count, length): the first to the last.

    Args:
        length: number of items.
        count: at most so many indices.

    >>> evenly_spaced_with_ends(10, 4).tolist()
    [0, 3, 6, 9]
    """
    return torch.linspace(0, length - 1, min(count, length)).round().long()


def central(length: int, count: int) -> list[int]:
    """The middles ⌊(i + ½) · length / n⌋ of n = min(count, length) equal parts.

    Their mean stands for that of all indices, which starts at the first of each part would shift.

    >>> central(21, 3), central(2, 5)
    ([3, 10, 17], [0, 1])
    """
    n = min(count, length)
    return [(2 * i + 1) * length // (2 * n) for i in range(n)]
