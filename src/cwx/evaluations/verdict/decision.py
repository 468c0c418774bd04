"""The verdict in one sentence: suspicious, nothing found, or why neither can be said."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cwx.functional.bank_comparison import SMALLEST_BANK, BankComparison

State = Literal["suspicious", "nothing found", "cannot say"]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a decision is based on.

    Attributes:
        comparison: with the bank; ``None`` without one.
        bank: the number of networks in the bank.
        accuracy: of the network on the test images, 0-1.
        at_chance: whether the predictions are no better than chance.
        bank_accuracies: of the bank's networks on the same images, 0-1.
        images: the number of test images.
        top_class: the class that stands out most, in words.
        other_classes: classes that stand out at least half as much, in words.
        searched: what was looked for, in words.
    """

    comparison: BankComparison | None
    bank: int
    accuracy: float
    at_chance: bool
    bank_accuracies: Sequence[float]
    images: int
    top_class: str
    other_classes: Sequence[str]
    searched: Sequence[str]


def decide(
    evidence: Evidence, *, alpha: float, accuracy_drop: float, least_images: int
) -> tuple[State, str]:
    """The state and its sentence.

    Args:
        alpha: the largest p-value of a suspicious network, 0-1.
        accuracy_drop: a network that is less accurate than the bank's median by more than this, or
            the reverse, cannot be compared with the bank, 0-1.
        least_images: fewer test images allow no verdict.
    """
    if reason := _obstacle(evidence, alpha, accuracy_drop, least_images):
        return "cannot say", f"Cannot say: {reason}."
    comparison = evidence.comparison
    assert comparison is not None
    p = f"p = {comparison.p:.2g}"
    if comparison.p <= alpha:
        others = round(comparison.p * (evidence.bank + 1)) - 1
        count = f"{others} of {evidence.bank}" if others else f"None of {evidence.bank}"
        verb = "look" if others > 1 else "looks"
        counted = f"{count} clean networks {verb} like this ({p})"
        sentence = f"Suspicious: class {evidence.top_class}. {counted}."
        return "suspicious", sentence + _others(evidence.other_classes)
    looked_for = ", ".join(evidence.searched)
    return "nothing found", f"Nothing found ({p}). Looked for: {looked_for}."


def _others(classes: Sequence[str]) -> str:
    """What it means that further classes stand out; empty without any."""
    if not classes:
        return ""
    names = classes[0] if len(classes) == 1 else f"{classes[0]} and {len(classes) - 1} more"
    verb = "stands" if len(classes) == 1 else "stand"
    return (
        f" Class {names} {verb} out as well: so do networks of another recipe than the bank's "
        "(augmentation, label noise), and backdoors with several targets."
    )


def _obstacle(evidence: Evidence, alpha: float, accuracy_drop: float, least_images: int) -> str:
    """The reason why there can be no verdict; empty if there is none."""
    if evidence.images < least_images:
        return (
            f"there are {evidence.images} test images, and a verdict needs {least_images} or more"
        )
    if evidence.at_chance:
        return (
            f"the network classifies {evidence.accuracy:.0%} of the images correctly, no better "
            "than chance: check the size, the normalisation and the order of the classes"
        )
    if evidence.comparison is None:
        return (
            "there is no bank of clean networks to compare with (experts.bank); the class that "
            f"stands out most among the classes of this network is {evidence.top_class}"
        )
    # The smallest p-value, 1 / (bank + 1), is that of a network that stands out more than all.
    needed = max(SMALLEST_BANK, math.ceil(1 / alpha - 1))
    if evidence.bank < needed:
        return (
            f"the bank has {evidence.bank} networks, and with fewer than {needed} the p-value "
            f"cannot reach {min(alpha, 0.05):g}; the class that stands out most is "
            f"{evidence.top_class}"
        )
    accuracies = sorted(evidence.bank_accuracies)
    median = accuracies[len(accuracies) // 2]
    if evidence.accuracy < median - accuracy_drop:
        return (
            f"the network classifies {evidence.accuracy:.0%} of the images correctly, the bank "
            f"{median:.0%}: check the size, the normalisation and the order of the classes, or "
            "whether the bank has the same recipe"
        )
    if median < evidence.accuracy - accuracy_drop:
        return (
            f"the bank classifies {median:.0%} of the images correctly, the network "
            f"{evidence.accuracy:.0%}: the bank needs the same data, architecture and recipe"
        )
    return ""
