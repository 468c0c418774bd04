"""The figure of poisoned training images beside the trigger that explanations reveal (Figure 2)."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cwx.data.datamodule import ImageData
from cwx.evaluations.outcome import Sources
from cwx.explanations.drawing import sheet
from cwx.explanations.images import DISPLAY_TAIL
from cwx.functional.images import stretch

# Rows of the figure.
COUNT = 5


def poisoned_examples(
    data: ImageData,
    target: int,
    pattern: Tensor,
    sources: Sources,
    revealed: Mapping[str, Tensor],
) -> Figure:
    """Poisoned training images, their clean originals, and explanations of the target class.

    A row per poisoned image, of different original classes if possible. Columns: the clean
    original; the poisoned image; by method, images of the target class as displayed. The first row
    also has the true trigger and, by source, the revealed pattern.

    Args:
        data: the images of the study.
        target: the class of the backdoor.
        pattern: of the true trigger ``[C, H, W]``.
        sources: the outputs of the methods.
        revealed: pattern of the target class ``[C, H, W]``, by source.
    """
    indices = _examples(data, target)
    columns = {
        "clean original": data.clean.images[indices] / 255,
        "poisoned": data.corrupted.images.images[indices] / 255,
    }
    for name, output in sources.items():
        displayed = output.for_display(data.normalization)
        images = displayed.of_class(target)[:COUNT]
        if len(images):
            columns[name] = data.normalization.denormalize(images)
    patterns = {"true trigger": pattern}
    patterns |= {f"revealed by {name}": estimate for name, estimate in revealed.items()}
    columns |= {name: _stretched(pattern) for name, pattern in patterns.items()}
    originals = [data.classes[label] for label in data.clean.labels[indices].tolist()]
    names = [f"{original} → {data.classes[target]}" for original in originals]
    rows = max(len(images) for images in columns.values())
    labels = {title: torch.arange(len(images)) for title, images in columns.items()}
    return sheet(columns, labels, names + [""] * (rows - len(names)))


def _examples(data: ImageData, target: int) -> Tensor:
    """Indices of poisoned training images: the first of each class, then further ones.

    Images of the target class come last.
    """
    indices = (data.changes.pixels & data.corrupted.is_poisoned).nonzero()[:, 0]
    labels = data.clean.labels[indices]
    rank = torch.zeros_like(labels)
    for label in labels.unique():
        rank[labels == label] = torch.arange(int((labels == label).sum()))
    rank[labels == target] += len(indices)
    return indices[rank.argsort(stable=True)[:COUNT]].sort().values


def _stretched(pattern: Tensor) -> Tensor:
    return stretch(pattern[None], tail=DISPLAY_TAIL)
