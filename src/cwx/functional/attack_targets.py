"""Target classes of attacks, always different from the label (Dong et al., §2.1 and §3).

Labels and targets are int64 class indices.
"""

import torch
from torch import Tensor


def shifts(count: int, classes: int, generator: torch.Generator) -> Tensor:
    """Random class offsets for `others`, uniform in 1 to `classes` − 1: int64 ``[count]``, CPU.

    Draw for a whole batch and index the result like the batch, so that the draws do not depend on
    the number of ranks.

    Raises:
        ValueError: `classes` is less than 2.
    """
    if classes < 2:
        raise ValueError(
            f"an attack needs a target class other than the label, but classes is {classes}: give "
            "data of 2 or more"
        )
    return torch.randint(1, classes, (count,), generator=generator)


def others(labels: Tensor, shifts: Tensor, classes: int) -> Tensor:
    """(labels + shifts) mod classes: a class other than each label, int64 ``[n]``.

    >>> others(torch.tensor([0, 1, 2]), torch.tensor([1, 2, 2]), 3)
    tensor([1, 0, 1])

    Args:
        labels: int64 ``[n]``, 0 to classes − 1.
        shifts: int64 ``[n]``, 1 to classes − 1.
    """
    return (labels + shifts.to(labels.device)) % classes


def least_likely(probabilities: Tensor, labels: Tensor, count: int) -> Tensor:
    """The `count` least likely classes of each image, least likely first (Dong et al., §2.1).

    Equal probabilities are ordered by class index.

    Args:
        probabilities: ``[n, classes]``, averaged over the networks of the ensemble.
        labels: ``[n]``, excluded from the result.
        count: number of classes per image.

    Returns:
        ``[n, count]``.

    Raises:
        ValueError: there are fewer than `count` other classes.
    """
    check_targets(count, probabilities.shape[1])
    order = probabilities.argsort(dim=1, stable=True)
    rest = order[order != labels[:, None]].view(len(order), probabilities.shape[1] - 1)
    return rest[:, :count]


def check_targets(count: int, classes: int) -> None:
    """Refuse a number of targets per image other than 1 to `classes` − 1.

    Raises:
        ValueError: with the valid range.
    """
    if not 1 <= count < classes:
        raise ValueError(
            f"adversary.targets is {count}, but with {classes} classes an image has "
            f"{classes - 1} possible targets: give 1 to {classes - 1}"
        )
