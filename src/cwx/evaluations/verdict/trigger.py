"""The recovered trigger of a class: its success on images that it was not made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from matplotlib.figure import Figure
from torch import Tensor

from cwx.data.splits import ImageSet
from cwx.evaluations.patterns.probe import Probe
from cwx.explanations.drawing import Tile, tiles
from cwx.explanations.patterns import Triggers
from cwx.training.subject import Subject

# Images shown with the trigger, and networks of the bank that it is tried on.
_SHOWN, _NETWORKS = 4, 5


@dataclass(frozen=True, kw_only=True)
class TriggerEvidence:
    """Metrics of the trigger of a class, and a figure of it."""

    metrics: Mapping[str, float]
    figure: Figure


def trigger_evidence(
    subject: Subject, triggers: Triggers, label: int, images: int
) -> TriggerEvidence | None:
    """What the trigger of class `label` does to images that its search did not use.

    A trigger that sends images to the class on clean networks too is a feature of the class, not of
    this network.

    Args:
        images: at most so many test images.

    Returns:
        ``None`` if there is no trigger of the class, or no image of another class.
    """
    positions = (triggers.labels == label).nonzero()[:, 0].tolist()
    test = subject.data.splits.test
    outside = test.at(~triggers.searched)
    others = outside.at(outside.labels != label).spread(images)
    if not positions or not len(others):
        return None
    (position,) = positions
    probe = Probe(subject, subject.first_network("expert"), others)
    attach = triggers.attach(position)
    after = probe.predict(attach, label).classes
    metrics = {
        "verdict/trigger/success": _rate(after == label),
        "verdict/trigger/without": _rate(probe.clean == label),
        "verdict/trigger/size": triggers.masks[position].mean().item(),
        "verdict/trigger/images": float(len(others)),
    }
    if len(subject.bank):
        rates = [
            _rate(Probe(subject, subject.bank_network(trajectory), others).hits(attach, label))
            for trajectory in subject.bank.trajectories[:_NETWORKS]
        ]
        metrics["verdict/trigger/bank"] = fmean(rates)
    figure = _figure(subject, triggers, position, others, probe.clean, after)
    return TriggerEvidence(metrics=metrics, figure=figure)


def _rate(hits: Tensor) -> float:
    return hits.double().mean().item()


def _figure(
    subject: Subject,
    triggers: Triggers,
    position: int,
    others: ImageSet,
    before: Tensor,
    after: Tensor,
) -> Figure:
    classes, target = subject.data.classes, int(triggers.labels[position])
    mask = triggers.masks[position][None]
    shown = others.spread_indices(_SHOWN).tolist()
    images = others.images[shown].float() / 255
    stamped = triggers.attach(position)(images)
    return tiles(
        [
            (
                "recovered trigger",
                [
                    Tile(triggers.on_grey()[position], f"for {classes[target]}", framed=False),
                    Tile(mask.expand_as(triggers.patterns[position]), "mask", framed=False),
                ],
            ),
            (
                "images",
                [
                    Tile(image, classes[before[i]], framed=False)
                    for image, i in zip(images, shown, strict=True)
                ],
            ),
            (
                "with the trigger",
                [
                    Tile(image, classes[after[i]], framed=int(after[i]) == target)
                    for image, i in zip(stamped, shown, strict=True)
                ],
            ),
        ]
    )
