"""Which pattern of a class is its best: the one with the lowest loss on D_n (ISCP, §3; I5)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from cwx.evaluations.patterns.probe import Probe, Reached
from cwx.explanations.patterns import Attach, Patterns, Perturbations
from cwx.functional.images import rescale


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One of those from which a class takes its best.

    Attributes:
        label: the class.
        place: among those of the class, from 0.
        tied: how many of its pixels were drawn among equals.
        attach: puts it on images.
        picture: it alone, a unit image ``[C, H, W]``.
        mask: boolean mask ``[H, W]``, the pixels that it replaces; ``None`` if it adds to all.
    """

    label: int
    place: int
    tied: int
    attach: Attach
    picture: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Candidates of one source and size, several a class.

    Attributes:
        source, size: as in the tables; the size is a share of the pixels, or for perturbations
            their radius on the 0-255 scale.
        explains: the kind of network they are for.
        searched: boolean mask ``[t]``, test images that they were found on.
        divided: whether success is divided by the accuracy on the class.
    """

    source: str
    size: str
    explains: str
    searched: Tensor
    candidates: Sequence[Candidate]
    divided: bool = True


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A candidate and what came of it.

    Attributes:
        found: what the network makes of the images that carry it.
        loss: the mean over those of other classes that were searched on; over all of other
            classes if none was.
    """

    candidate: Candidate
    found: Reached
    loss: float


def of_size(name: str, found: Patterns, size: float) -> Contest:
    """The patterns of a source, cut to a share of the pixels."""
    cut = found.cut(size)
    pictures = cut.on_grey()
    return Contest(
        source=name,
        size=f"{size:g}",
        explains=found.explains,
        searched=found.searched,
        candidates=[
            Candidate(
                label=int(label),
                place=int((found.labels[:i] == label).sum()),
                tied=int(cut.tied[i]),
                attach=cut.attach(i),
                picture=pictures[i],
                mask=cut.masks[i],
            )
            for i, label in enumerate(found.labels)
        ],
    )


def by_radius(name: str, found: Perturbations) -> list[Contest]:
    """The perturbations of a source, a contest for each radius."""
    pictures = rescale(found.deltas)
    return [
        Contest(
            source=name,
            size=f"{255 * radius:g}",
            explains=found.explains,
            searched=found.searched,
            divided=False,
            candidates=[
                Candidate(
                    label=int(found.labels[i]),
                    place=0,
                    tied=0,
                    attach=found.attach(i),
                    picture=pictures[i],
                )
                for i in (found.epsilons == radius).nonzero()[:, 0].tolist()
            ],
        )
        for radius in found.epsilons.unique().tolist()
    ]


def entries(contest: Contest, probe: Probe, searched: Tensor) -> list[Entry]:
    """Every candidate before a network, in order.

    Args:
        searched: boolean mask, those of the probe's images that were searched on.
    """
    return [_enter(candidate, probe, searched) for candidate in contest.candidates]


def _enter(candidate: Candidate, probe: Probe, searched: Tensor) -> Entry:
    found = probe.others(candidate.attach, candidate.label)
    others = probe.images.labels != candidate.label
    among = others & searched if (others & searched).any() else others
    return Entry(candidate=candidate, found=found, loss=found.loss[among].mean().item())


def best(entered: Sequence[Entry]) -> list[Entry]:
    """That with the lowest loss of each class, in the order in which classes appear."""
    by_class: dict[int, list[Entry]] = {}
    for entry in entered:
        by_class.setdefault(entry.candidate.label, []).append(entry)
    return [min(found, key=lambda entry: entry.loss) for found in by_class.values()]
