"""Limits on the number of training images."""

from collections.abc import Sequence

from cwx.data.splits import ImageSet


def limited(train: ImageSet, per_class: int | None, total: int | None) -> ImageSet:
    """The first `per_class` images of each class, and of them at most `total`, equally many each.

    Raises:
        ValueError: `total` is below the number of classes with images.
    """
    if per_class is not None:
        train = train.first(per_class)
    if total is None or len(train) <= total:
        return train
    most = equal_part(train.labels.bincount().tolist(), total)
    if most < 1:
        raise ValueError(
            f"data.total is {total}, below the number of classes with training images: "
            f"give at least {len(train.labels.unique())}, or null for all images"
        )
    return train.first(most)


def equal_part(counts: Sequence[int], total: int) -> int:
    """The largest n for which the first n images of every class are at most `total` together.

    Args:
        counts: images of each class.

    >>> equal_part([10, 3, 100], 20), equal_part([1, 1], 9), equal_part([5, 5], 1)
    (8, 1, 0)
    """
    return max(
        n for n in range(max(counts, default=0) + 1) if sum(min(c, n) for c in counts) <= total
    )
