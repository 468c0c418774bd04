"""Orders of class names, and the order that predictions suggest."""

import re
from collections.abc import Mapping, Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
# The last number of a name, and what is around it.
_NUMBERED = re.compile(r"(|.*[^0-9])([0-9]+)([^0-9]*)")


def in_order(names: Sequence[str]) -> tuple[str, ...]:
    """Names in the order of their numbers if all are numbers, else sorted as text.

    The numbers may be between the same texts in all names.

    >>> in_order(["10", "9", "-1"])
    ('-1', '9', '10')
    >>> in_order(["class_10", "class_2"])
    ('class_2', 'class_10')
    >>> in_order(["b", "10", "9"])
    ('10', '9', 'b')
    """
    texts = sorted(names)
    numbers = _numbers(texts)
    if numbers is None:
        return tuple(texts)
    by_name = dict(zip(texts, numbers, strict=True))
    # Names of one number, such as 1 and 01, keep their order as text.
    return tuple(sorted(texts, key=by_name.__getitem__))


def _numbers(names: Sequence[str]) -> list[float] | None:
    """The number in each name; ``None`` if the names are not numbers between the same texts."""
    if all(_NUMBER.fullmatch(name) for name in names):
        return [float(name) for name in names]
    parts = [_NUMBERED.fullmatch(name) for name in names]
    frames = {match.group(1, 3) if match else None for match in parts}
    if len(frames) == 1 and None not in frames:
        return [float(match[2]) for match in parts if match]
    return None


def usual_orders(
    classes: Sequence[str], synsets: Sequence[str] | None
) -> Mapping[str, tuple[str, ...]]:
    """Other orders in which programs number these classes, by description.

    Args:
        classes: the names in the present order.
        synsets: the WordNet id of each class, in the same order.
    """
    orders = {
        "sorted as text": tuple(sorted(classes)),
        "ordered by number": in_order(classes),
        "sorted without regard to case": tuple(sorted(classes, key=lambda n: (n.casefold(), n))),
    }
    if synsets is not None:
        by_synset = dict(zip(classes, synsets, strict=True))
        orders["ordered by WordNet id"] = tuple(sorted(classes, key=by_synset.__getitem__))
    distinct: dict[str, tuple[str, ...]] = {}
    for description, order in orders.items():
        if order != tuple(classes) and order not in distinct.values():
            distinct[description] = order
    return distinct


def outputs_of(classes: Sequence[str], order: Sequence[str]) -> Tensor:
    """For each class, the index of its output if the outputs are in `order`: ``[classes]``."""
    index = {name: position for position, name in enumerate(order)}
    return torch.tensor([index[name] for name in classes])


def match_outputs(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The output for each class ``[classes]`` that makes most predictions correct.

    A permutation: the assignment of largest sum in the confusion matrix. A class without images
    keeps its own output where that is free.

    Args:
        predictions, labels: indices of outputs and classes ``[n]``.
    """
    confusion = torch.zeros(classes, classes, dtype=torch.float64)
    confusion.index_put_((labels, predictions), torch.ones(len(labels)).double(), accumulate=True)
    # Ties: the present output.
    confusion += 0.5 / max(1, classes) * torch.eye(classes, dtype=torch.float64)
    _, outputs = linear_sum_assignment(confusion.numpy(), maximize=True)
    return torch.from_numpy(outputs).long()
