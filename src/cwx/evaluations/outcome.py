"""What an evaluation returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from matplotlib.figure import Figure

from cwx.explanations import Explanations
from cwx.subject import Subject

Row = Mapping[str, str | int | float]


@dataclass(frozen=True)
class Outcome:
    """Numbers by flat name, tables as rows that share their keys, and figures by file stem."""

    numbers: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, list[Row]] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)


Sources = Mapping[str, Explanations]
Evaluation = Callable[[Subject, Sources], Outcome]


def raw_and_projected(subject: Subject, sources: Sources) -> dict[str, Explanations]:
    """Each source as its method left it, and, as ``<source>-projected``, within the image range."""
    normalization = subject.data.normalization
    return {
        name: version
        for source, explanations in sources.items()
        for name, version in (
            (source, explanations),
            (f"{source}-projected", explanations.projected(normalization)),
        )
    }


def real_beside(subject: Subject, sources: Sources) -> Explanations:
    """Real test images, as many of a class as the richest source has."""
    return subject.real(max(int(torch.bincount(e.labels).max()) for e in sources.values()))
