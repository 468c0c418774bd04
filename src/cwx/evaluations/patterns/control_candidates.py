"""The candidates of controls: other masks and canvases, and the canvases that may be compared."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cwx.evaluations.patterns.selection import Candidate, canvas_of
from cwx.explanations.patterns import BinaryPatterns, Patterns
from cwx.functional.rng import stream


def with_random_mask(candidate: Candidate, canvas: Tensor, draw: int) -> Candidate:
    """The candidate with a random mask of as many pixels, on its canvas."""
    assert candidate.mask is not None
    generator = stream(0, candidate.label, candidate.canvas, draw)
    order = torch.randperm(candidate.mask.numel(), generator=generator)
    mask = torch.zeros(candidate.mask.numel(), dtype=torch.bool)
    mask[order[: int(candidate.mask.sum())]] = True
    return with_mask(candidate, mask.view_as(candidate.mask), canvas)


def fewest_canvases(searches: Sequence[Patterns]) -> dict[int, int]:
    """By class, the smallest number of canvases that a search has for it; not 0."""
    counts = [Counter(patterns.labels.tolist()) for patterns in searches]
    return {
        label: min(count[label] for count in counts if label in count)
        for label in set().union(*counts)
    }


def without_own_canvases(searched: Patterns, patterns: Patterns) -> Patterns:
    """The patterns of a search on canvases of other classes without those on the class's own.

    White canvases, for example, are those of every class: the search on them is that of the
    pattern, and no control.
    """
    own = [
        bool((patterns.canvases[patterns.labels == label] == canvas).flatten(1).all(1).any())
        for label, canvas in zip(searched.labels, searched.canvases, strict=True)
    ]
    return searched.at(~torch.tensor(own, dtype=torch.bool))


def other_canvases(patterns: Patterns, candidate: Candidate, count: int) -> Tensor:
    """At most `count` random canvases of other classes, ``[m, C, H, W]``.

    Not those that equal the candidate's own, such as white ones: they would give its own pattern.
    """
    own = canvas_of(patterns, candidate)
    differs = (patterns.canvases != own).flatten(1).any(1)
    others = ((patterns.labels != candidate.label) & differs).nonzero()[:, 0]
    generator = stream(1, candidate.label, candidate.canvas)
    order = torch.randperm(len(others), generator=generator)
    # The same number for every class, also where a class has fewer others.
    wanted = torch.arange(count if len(others) else 0) % max(1, len(others))
    return patterns.canvases[others[order[wanted]]]


def with_mask(candidate: Candidate, mask: Tensor | None, canvas: Tensor) -> Candidate:
    """The candidate with another mask or canvas."""
    assert mask is not None
    pattern = BinaryPatterns(masks=mask[None], canvases=canvas[None], tied=torch.zeros(1))
    return replace(candidate, attach=pattern.attach(0), mask=mask)
