"""What an evaluation returns."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

from cwx.data.splits import ImageSet
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import MethodOutput, of_kind
from cwx.functional.rng import stream
from cwx.training.subject import Subject

Row = Mapping[str, str | int | float]


@dataclass(frozen=True)
class Outcome:
    """Numbers by flat name, tables as rows that share their keys, and figures by file stem."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, list[Row]] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)


# What methods left, by method.
Sources = Mapping[str, MethodOutput]
Evaluation = Callable[[Subject, Sources], Outcome]


def raw_and_projected(subject: Subject, sources: Sources) -> dict[str, Explanations]:
    """Each source as its method left it, and, as ``<source>-projected``, within the image range."""
    normalization = subject.data.normalization
    return {
        name: version
        for source, explanations in of_kind(sources, Explanations).items()
        for name, version in (
            (source, explanations),
            (f"{source}-projected", explanations.projected(normalization)),
        )
    }


def each_network(
    panel: Mapping[str, Sequence[nn.Module]],
    measure: Callable[[nn.Module], Iterable[Row]],
) -> list[Row]:
    """The rows that `measure` gives of every network, headed by its evaluation network and its place there."""
    return [
        {"network": name, "replicate": place, **row}
        for name, networks in panel.items()
        for place, network in enumerate(networks)
        for row in measure(network)
    ]


def over_networks(rows: Iterable[Row], *, values: Sequence[str]) -> list[Row]:
    """Rows of `each_network`, averaged over the networks of one evaluation network.

    Args:
        values: the columns to average; each gets a neighbour ``<value>_std``, the sample standard
            deviation over the networks, empty where there is one. All other columns tell apart
            what is averaged.
    """
    groups: dict[tuple[tuple[str, Any], ...], list[Row]] = {}
    for row in rows:
        key = tuple((name, v) for name, v in row.items() if name not in ("replicate", *values))
        groups.setdefault(key, []).append(row)
    return [
        {**dict(key), "networks": len(found)}
        | {name: part for value in values for name, part in _spread(value, found).items()}
        for key, found in groups.items()
    ]


def _spread(name: str, rows: Sequence[Row]) -> Row:
    values = [float(row[name]) for row in rows]
    # A power without a clean accuracy is not finite, and has no spread.
    spread = len(values) > 1 and all(map(math.isfinite, values))
    return {name: mean(values), f"{name}_std": stdev(values) if spread else ""}


# The names of the baselines, in their order.
BASELINES = ("real", "train", "mean")


def baselines(subject: Subject, sources: Sources) -> dict[str, Explanations]:
    """What any method must be better than, by name.

    - ``real``: the first test images of each class, never corrupted.
    - ``train``: training images drawn at random from each class.
    - ``mean``: one image a class, the mean of its training images.

    Of real images there are as many a class as the richest source has. Training images are
    those trained on: corrupted where a study corrupts them, under the labels they bear there.
    Data without training images have ``real`` alone.
    """
    images = of_kind(sources, Explanations).values()
    per_class = max((int(torch.bincount(e.labels).max()) for e in images), default=1)
    found = {"real": subject.real(per_class)}
    train, normalized = subject.data.splits.train, subject.data.normalization.from_bytes
    if len(train):
        for name, drawn in (("train", _drawn(train, per_class)), ("mean", _means(train))):
            found[name] = Explanations(normalized(drawn.images), drawn.labels)
    return found


def _drawn(train: ImageSet, per_class: int) -> Explanations:
    order = torch.randperm(len(train), generator=stream(0))
    shuffled = train.labels[order]
    chosen = torch.cat([order[shuffled == c][:per_class] for c in shuffled.unique()])
    return Explanations(train.images[chosen], train.labels[chosen])


def _means(train: ImageSet) -> Explanations:
    labels = train.labels.unique()
    means = [train.images[train.labels == c].float().mean(0) for c in labels]
    return Explanations(torch.stack(means), labels)
