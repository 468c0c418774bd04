"""What patterns look like, alone and on other images, and what the network says of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cwx.evaluations.patterns.probe import Probe
from cwx.evaluations.patterns.selection import Candidate
from cwx.explanations.drawing import Tile, highlight, tiles
from cwx.functional.spacing import evenly_spaced

# Other images of a row, and rows of the figure.
_SHOWN, _MOST_ROWS = 4, 20


@dataclass(frozen=True, kw_only=True)
class PatternExample:
    """The pattern of a class and its canvas.

    Attributes:
        candidate: with a mask.
        canvas: a unit image ``[C, H, W]``.
        unseen: boolean mask, the images of the probe that the search did not use.
    """

    candidate: Candidate
    canvas: Tensor
    unseen: Tensor


def examples_figure(probe: Probe, examples: Sequence[PatternExample]) -> Figure:
    """A row per class: the canvas, its mask, the pattern on grey and on black, and on other images.

    Captions are the predicted classes, of other images without → with the pattern. A red frame
    marks what is classified as the class. Classes beyond the first 20 are left out.
    """
    classes = probe.subject.data.classes
    return tiles(
        [
            (classes[example.candidate.label], _row(probe, example, classes))
            for example in examples[:_MOST_ROWS]
        ]
    )


def _row(probe: Probe, example: PatternExample, classes: Sequence[str]) -> list[Tile]:
    candidate, canvas = example.candidate, example.canvas
    mask, label = candidate.mask, candidate.label
    assert mask is not None
    images, before = _other_images(probe, example)
    alone = torch.stack([canvas, candidate.picture, torch.where(mask, canvas, torch.zeros(()))])
    after = probe.classify(torch.cat([alone, candidate.attach(images)]))
    names = [classes[index] for index in after.tolist()]

    def tile(image: Tensor, caption: str, index: int) -> Tile:
        return Tile(image, caption, framed=int(after[index]) == label)

    return [
        tile(canvas, f"canvas: {names[0]}", 0),
        Tile(highlight(canvas, mask.float(), 1.0), "mask", framed=False),
        tile(alone[1], f"on grey: {names[1]}", 1),
        tile(alone[2], f"on black: {names[2]}", 2),
        *(
            tile(image, f"{classes[old]} → {names[3 + i]}", 3 + i)
            for i, (image, old) in enumerate(
                zip(candidate.attach(images), before.tolist(), strict=True)
            )
        ),
    ]


def _other_images(probe: Probe, example: PatternExample) -> tuple[Tensor, Tensor]:
    """Unit images of other classes, unseen if there are any, and their predicted classes."""
    others = probe.images.labels != example.candidate.label
    unseen = others & example.unseen
    indices = (unseen if unseen.any() else others).nonzero()[:, 0]
    chosen = indices[evenly_spaced(len(indices), _SHOWN)]
    return probe.images.images[chosen].float() / 255, probe.clean[chosen]
