"""The result of an evaluation, means over networks, and baseline images."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any, Protocol, runtime_checkable

import torch
from matplotlib.figure import Figure
from torch import nn

from cwx.data.samples import class_means, draw_per_class
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import MethodOutput, of_kind
from cwx.functional.spread import sample_std
from cwx.training.subject import Subject

Row = Mapping[str, str | int | float]


@dataclass(frozen=True)
class Outcome:
    """What an evaluation measures and shows.

    Attributes:
        metrics: by flat name.
        tables: rows with the same keys, by file stem.
        figures: by file stem.
        files: the content of further files, by their path in the run's folder.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, list[Row]] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


# The output of each method, by the method's name.
Sources = Mapping[str, MethodOutput]
Evaluation = Callable[[Subject, Sources], Outcome]


@runtime_checkable
class NeedsBank(Protocol):
    """An evaluation that compares the first expert with a bank of clean networks.

    Attributes:
        bank_statistics: of every class, by name, which the bank's networks need as well; the
            setting ``statistics`` of the evaluation.
    """

    bank_statistics: Mapping[str, Any]

    def suspected_class(self, subject: Subject, sources: Sources) -> int:
        """The index of the class that stands out most."""


@runtime_checkable
class NeedsReplicas(Protocol):
    """An evaluation that compares held-out experts with their replicas (`Subject.replicas`).

    Attributes:
        span: the number of epochs of a replica.
    """

    span: int

    def replica_starts(self) -> list[int]:
        """The epochs from whose states replicas are trained."""


@runtime_checkable
class OnAllRanks(Protocol):
    """An evaluation that every rank calls, and that divides its work by `Subject.ranks`.

    Its outcome on rank 0 is that of a single process. All others run on rank 0 alone.

    Attributes:
        on_all_ranks: true.
    """

    on_all_ranks: bool


def raw_and_projected(subject: Subject, sources: Sources) -> dict[str, Explanations]:
    """Raw images by source, and as ``<source>-projected`` those projected to the image range."""
    normalization = subject.data.normalization
    return {
        name: version
        for source, explanations in of_kind(sources, Explanations).items()
        for name, version in (
            (source, explanations),
            (f"{source}-projected", explanations.project(normalization)),
        )
    }


def measure_networks(
    networks_by_name: Mapping[str, Sequence[nn.Module]],
    measure: Callable[[nn.Module], Iterable[Row]],
) -> list[Row]:
    """The rows that `measure` returns for every network.

    Each row starts with ``network``, its name, and ``replicate``, its index among the networks of
    that name.
    """
    return [
        {"network": name, "replicate": replicate, **row}
        for name, networks in networks_by_name.items()
        for replicate, network in enumerate(networks)
        for row in measure(network)
    ]


def mean_over_networks(rows: Iterable[Row], *, values: Sequence[str]) -> list[Row]:
    """Rows of `measure_networks`, averaged over replicates.

    Args:
        values: the columns to average. Each gets a column ``<value>_std``, the sample standard
            deviation over the networks, empty for a single network. All other columns except
            ``replicate`` are the key to group by; ``networks`` counts the rows of a group.
    """
    groups: dict[tuple[tuple[str, Any], ...], list[Row]] = {}
    for row in rows:
        key = tuple((name, v) for name, v in row.items() if name not in ("replicate", *values))
        groups.setdefault(key, []).append(row)
    return [
        {**dict(key), "networks": len(group)}
        | {name: part for value in values for name, part in _mean_and_std(value, group).items()}
        for key, group in groups.items()
    ]


def _mean_and_std(name: str, rows: Sequence[Row]) -> Row:
    values = [float(row[name]) for row in rows]
    # Not finite, such as predictive power if the clean accuracy is 0, or a single network.
    std = sample_std(values)
    return {name: mean(values), f"{name}_std": std if math.isfinite(std) else ""}


# The names of the baselines, in their order.
BASELINES = ("real", "train", "mean")


def baselines(subject: Subject, sources: Sources) -> dict[str, Explanations]:
    """Images that any method should outperform, by name.

    - ``real``: the first test images of each class, never corrupted.
    - ``train``: random training images of each class.
    - ``mean``: one image per class, the mean of its training images.

    ``real`` and ``train`` have as many images per class as the source with the most. Training
    images and labels are those of the training, corrupted if the study corrupts them. Data without
    training images have ``real`` alone.
    """
    per_class = most_per_class(of_kind(sources, Explanations).values())
    by_name = {"real": subject.real_images(per_class)}
    train, normalize = subject.data.splits.train, subject.data.normalization.from_bytes
    if len(train):
        means, labels = class_means(train)
        by_name["train"] = training_images(subject, per_class)
        by_name["mean"] = Explanations(normalize(means), labels)
    return by_name


def most_per_class(images: Iterable[Explanations]) -> int:
    """The largest number of images of a class over all sources; 1 without sources."""
    return max((int(torch.bincount(source.labels).max()) for source in images), default=1)


def training_images(subject: Subject, per_class: int) -> Explanations:
    """At most `per_class` training images of each class, drawn at random with a fixed seed."""
    images = draw_per_class(subject.data.splits.train, per_class)
    return Explanations(subject.data.normalization.from_bytes(images.images[:]), images.labels)
