"""The trigger of a class: its success on images that it was not made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.figure import Figure
from torch import Tensor

from cwx.data.splits import ImageSet
from cwx.evaluations.patterns.probe import Probe
from cwx.explanations.drawing import Tile, tiles
from cwx.explanations.patterns import Attach
from cwx.training.subject import Subject

# Images shown with the trigger, and networks of the bank that it is tried on.
_SHOWN, _NETWORKS = 4, 5


@dataclass(frozen=True, kw_only=True)
class ClassTrigger:
    """What sends images to a class: a trigger, a universal perturbation or a pattern.

    Attributes:
        kind: in words.
        label: the class.
        attach: applies it to images.
        pictures: unit images ``[C, H, W]`` of it, with their titles.
        size: the fraction of the image that it changes, 0-1; ``None`` for the whole image.
        searched: boolean mask ``[t]`` of the test images that its search used.
    """

    kind: str
    label: int
    attach: Attach
    pictures: Sequence[tuple[Tensor, str]]
    size: float | None
    searched: Tensor


@dataclass(frozen=True, kw_only=True)
class TriggerEvidence:
    """Metrics of the trigger of a class, a figure of it, and its kind in words."""

    kind: str
    metrics: Mapping[str, float]
    figure: Figure


def trigger_evidence(
    subject: Subject, trigger: ClassTrigger, images: int
) -> TriggerEvidence | None:
    """What a trigger does to images that its search did not use.

    A trigger that sends images to the class on clean networks too is a feature of the class, not of
    this network.

    Args:
        images: at most so many test images.

    Returns:
        ``None`` if there is no image of another class.
    """
    test, label = subject.data.splits.test, trigger.label
    outside = test.at(~trigger.searched)
    others = outside.at(outside.labels != label).spread(images)
    if not len(others):
        return None
    probe = Probe(subject, subject.first_network("expert"), others)
    after = probe.predict(trigger.attach, label).classes
    metrics = {
        "verdict/trigger/success": _rate(after == label),
        "verdict/trigger/without": _rate(probe.clean == label),
        "verdict/trigger/images": float(len(others)),
    }
    if trigger.size is not None:
        metrics["verdict/trigger/size"] = trigger.size
    if len(subject.bank):
        networks = [subject.bank_network(t) for t in subject.bank.trajectories[:_NETWORKS]]
        metrics["verdict/trigger/bank"] = fmean(
            _rate(Probe(subject, network, others).hits(trigger.attach, label))
            for network in networks
        )
    figure = _figure(subject.data.classes, trigger, others, probe.clean, after)
    return TriggerEvidence(kind=trigger.kind, metrics=metrics, figure=figure)


def _rate(hits: Tensor) -> float:
    return hits.double().mean().item()


def _figure(
    classes: Sequence[str], trigger: ClassTrigger, others: ImageSet, before: Tensor, after: Tensor
) -> Figure:
    shown = others.spread_indices(_SHOWN).tolist()
    images = others.images[shown].float() / 255
    changed = trigger.attach(images)
    return tiles(
        [
            (
                f"{trigger.kind}, class {classes[trigger.label]}",
                [Tile(picture, title, framed=False) for picture, title in trigger.pictures],
            ),
            (
                "images",
                [
                    Tile(image, classes[int(before[i])], framed=False)
                    for image, i in zip(images, shown, strict=True)
                ],
            ),
            (
                "with it",
                [
                    Tile(image, classes[int(after[i])], framed=int(after[i]) == trigger.label)
                    for image, i in zip(changed, shown, strict=True)
                ],
            ),
        ]
    )
