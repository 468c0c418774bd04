"""Finding the training images that carry what explanations reveal (CWX, §5; C12)."""

from collections.abc import Callable, Mapping

import torch

from cwx.evaluations.outcome import Plan, Sources
from cwx.functional.carriers import Groups, surroundings, tell_apart
from cwx.functional.triggers import revealed_pattern
from cwx.subject import Subject, Suspicion

Purification = Callable[[Subject, Sources], Suspicion | None]


class NoPurification:
    """Suspects nothing and trains nothing anew."""

    def __call__(self, subject: Subject, sources: Sources) -> None:
        return


class RevealedFilter:
    """Suspects the images that carry what one method's images reveal of their class.

    Args:
        source: the method.
        separation: how well a class must fall into two groups to be suspected, 0-1.

    Raises:
        ValueError: the separation is out of range.
    """

    def __init__(self, *, source: str, separation: float) -> None:
        if not 0 <= separation <= 1:
            raise ValueError(f"purification.separation is {separation}: give a share in 0-1")
        self.source, self.separation = source, separation

    def check(self, plan: Plan) -> None:
        if self.source not in plan.methods:
            raise ValueError(
                f"purification.source is {self.source!r}, which this study does not make: "
                f"set it to one of {', '.join(plan.methods)}, or choose purification=none"
            )

    def __call__(self, subject: Subject, sources: Sources) -> Suspicion:
        revealing = {self.source: sources[self.source]}
        return suspicions(subject, revealing, separation=self.separation)[self.source]


def suspicions(subject: Subject, sources: Sources, *, separation: float) -> dict[str, Suspicion]:
    """What each source leads to suspect, without knowing the trigger or its target.

    A class's pattern is the mean of its images less that of all others. Each class's training
    images fall into two groups along its pattern (`cwx.functional.carriers.tell_apart`). The
    class whose groups are separated best is the suspected one, if that is better than
    `separation`, and its images that carry the pattern are suspected.
    A source that shows a single class, and a class with a single image, give no suspicion.
    """
    train = subject.data.splits.train
    groups: dict[str, dict[int, Groups]] = {name: {} for name in sources}
    for label, around in surroundings(train.images, train.labels):
        own = train.images[train.labels == label]
        for name, explanations in sources.items():
            shown = explanations.labels == label
            if len(own) > 1 and shown.any() and not shown.all():
                unit = subject.data.normalization.denormalize(explanations.images)
                pattern = revealed_pattern(unit[shown], unit[~shown])
                groups[name][label] = tell_apart(own, pattern, around)
    return {name: _suspicion(subject, found, separation) for name, found in groups.items()}


def _suspicion(subject: Subject, groups: Mapping[int, Groups], needed: float) -> Suspicion:
    labels = subject.data.splits.train.labels
    reached = {label: found.separation for label, found in groups.items()}
    best = max(reached, key=reached.__getitem__, default=None)
    label = None if best is None or reached[best] <= needed else best
    suspected, at_first = torch.zeros(2, len(labels), dtype=torch.bool)
    if label is not None:
        suspected[labels == label] = groups[label].carrying
        at_first[labels == label] = groups[label].at_first
    return Suspicion(suspected=suspected, at_first=at_first, label=label, separation=reached)
