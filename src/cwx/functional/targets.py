"""Which class an attack is to reach (Dong et al., §2.1 and §3; D1, D8)."""

import torch
from torch import Tensor


def shifts(count: int, classes: int, generator: torch.Generator) -> Tensor:
    """How many classes on a random other one is, for `others`: int64 ``[count]`` on the CPU.

    Draw for a whole batch and index it like the batch: any number of ranks sees the same.

    Raises:
        ValueError: there is no other class.
    """
    if classes < 2:
        raise ValueError(
            f"another class than the label is to be reached, and classes is {classes}: give data "
            "of 2 or more"
        )
    return torch.randint(1, classes, (count,), generator=generator)


def others(labels: Tensor, shifts: Tensor, classes: int) -> Tensor:
    """Labels of other classes, uniform among them where `shifts` are: int64 ``[n]``.

    >>> others(torch.tensor([0, 1, 2]), torch.tensor([1, 2, 2]), 3)
    tensor([1, 0, 1])

    Args:
        labels: int64 ``[n]``, 0 to classes − 1.
        shifts: int64 ``[n]``, 1 to classes − 1.
    """
    return (labels + shifts.to(labels.device)) % classes
