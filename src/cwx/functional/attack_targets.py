"""Which class an attack is to reach, never the label (Dong et al., §2.1 and §3; D1, D8).

Labels and targets are int64 class indices.
"""

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


def least_likely(probabilities: Tensor, labels: Tensor, count: int) -> Tensor:
    """The `count` least likely classes of each image, the least first (Dong et al., §2.1; D1).

    Of classes as likely, the one of the lower index comes first.

    Args:
        probabilities: of the classes, averaged over the networks asked, ``[n, classes]``.
        labels: ``[n]``, which are left out.

    Returns:
        ``[n, count]``.

    Raises:
        ValueError: there are not so many other classes.
    """
    check_targets(count, probabilities.shape[1])
    order = probabilities.argsort(dim=1, stable=True)
    rest = order[order != labels[:, None]].view(len(order), probabilities.shape[1] - 1)
    return rest[:, :count]


def check_targets(count: int, classes: int) -> None:
    """Refuse a number of targets that images of so many classes do not have.

    Raises:
        ValueError: names how many they have.
    """
    if not 1 <= count < classes:
        raise ValueError(
            f"adversary.targets is {count}, and with {classes} classes an image can be taken for "
            f"{classes - 1} others: give 1 to {classes - 1}"
        )
