"""The anomaly index of Neural Cleanse (Wang et al. 2019, §IV-C), for comparison."""

from typing import NamedTuple

from torch import Tensor

# The paper reports a backdoor above this index.
INDEX_LIMIT = 2.0
# The MAD of a normal law times this number is its standard deviation.
MAD_CONSISTENCY = 1.4826


class AnomalyIndex(NamedTuple):
    """The decision of Neural Cleanse.

    Attributes:
        label: the class of the smallest norm.
        value: its anomaly index, 0 or more; infinite if the MAD is 0 and the norm is below the
            median.
        flagged: whether the value is above 2.
    """

    label: int
    value: float
    flagged: bool


def neural_cleanse_index(norms: Tensor) -> AnomalyIndex:
    """How far the smallest mask norm lies below the median of all classes.

        (median − smallest) / (1.4826 · MAD)

    Among clean networks more than the 2.5 % that the paper assumes have an index above 2: the index
    is of the smallest of K norms, and classes have norms of their own. It is for comparison, no
    evidence.

    Args:
        norms: the norm of each class's mask, ``[K]``.

    Raises:
        ValueError: there are no norms, or one is not finite.

    >>> import torch
    >>> neural_cleanse_index(torch.tensor([12.0, 10.0, 9.0, 1.0, 10.0]))[::2]
    (3, True)
    """
    if not len(norms) or not norms.isfinite().all():
        raise ValueError(f"the anomaly index needs finite norms, not {norms.tolist()}")
    norms = norms.double()
    median = norms.quantile(0.5)
    deviation = MAD_CONSISTENCY * (norms - median).abs().quantile(0.5)
    label = int(norms.argmin())
    distance = median - norms[label]
    value = (distance / deviation).item() if distance > 0 else 0.0
    return AnomalyIndex(label, value, value > INDEX_LIMIT)
