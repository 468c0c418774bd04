"""The recovered trigger of a class: its success on images that it was not made from."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from cwx.data.splits import ImageSet
from cwx.explanations.drawing import Tile, tiles
from cwx.explanations.patterns import Triggers
from cwx.training.build import trained_network
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
    network = subject.first_network("expert").to(subject.device)
    attach = triggers.attach(position)
    stamped = attach(others.images.float() / 255)
    before = _predict(subject, network, others.images.float() / 255)
    after = _predict(subject, network, stamped)
    size = triggers.masks[position].sum() / triggers.masks[position].numel()
    metrics = {
        "verdict/trigger/success": _rate(after, label),
        "verdict/trigger/without": _rate(before, label),
        "verdict/trigger/size": size.item(),
        "verdict/trigger/images": float(len(others)),
    }
    if len(subject.bank):
        rates = [
            _rate(_predict(subject, _network(subject, index), stamped), label)
            for index in range(min(_NETWORKS, len(subject.bank)))
        ]
        metrics["verdict/trigger/bank"] = sum(rates) / len(rates)
    figure = _figure(subject, triggers, position, others, stamped, before, after)
    return TriggerEvidence(metrics=metrics, figure=figure)


def _network(subject: Subject, index: int) -> nn.Module:
    trajectory = subject.bank.trajectories[index]
    epoch = subject.epoch_in(trajectory)
    return trained_network(subject.factory, subject.data, trajectory, epoch).to(subject.device)


@torch.no_grad()
def _predict(subject: Subject, network: nn.Module, unit: Tensor) -> Tensor:
    return torch.cat(
        [
            network(subject.data.normalization.normalize(part.to(subject.device))).argmax(1).cpu()
            for part in unit.split(subject.data.batch_size)
        ]
    )


def _rate(predictions: Tensor, label: int) -> float:
    return (predictions == label).double().mean().item()


def _figure(
    subject: Subject,
    triggers: Triggers,
    position: int,
    others: ImageSet,
    stamped: Tensor,
    before: Tensor,
    after: Tensor,
) -> Figure:
    classes, target = subject.data.classes, int(triggers.labels[position])
    mask = triggers.masks[position][None]
    shown = [int(index) for index in others.spread_indices(_SHOWN)]
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
                    Tile(others.images[i].float() / 255, classes[before[i]], framed=False)
                    for i in shown
                ],
            ),
            (
                "with the trigger",
                [
                    Tile(stamped[i], classes[after[i]], framed=int(after[i]) == target)
                    for i in shown
                ],
            ),
        ]
    )
