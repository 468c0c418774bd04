"""Classes that an image is to be taken for; never its own.

Labels and targets are int64 class indices.
"""

from torch import Tensor


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
    check_targets(count, probabilities.shape[1])
    order = probabilities.argsort(dim=1, stable=True)
    others = order[order != labels[:, None]].view(len(order), probabilities.shape[1] - 1)
    return others[:, :count]


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
