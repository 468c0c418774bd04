"""What reference images tell of units: their means, some of their maps, their top images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cwx.data.datamodule import ImageData
from cwx.evaluations.neurons.top_images import Activation, normalized_batches
from cwx.functional.class_similarity import class_fractions
from cwx.functional.rng import stream
from cwx.functional.top_activations import RunningTopK
from cwx.training.ranks import Ranks

# What becomes of a removed unit.
AblationName = Literal["zero", "mean", "resample"]
ABLATIONS: tuple[AblationName, ...] = ("zero", "mean", "resample")
# Reference images whose maps may replace units.
SAMPLE = 128
_PURPOSE = 1260


@dataclass(frozen=True, kw_only=True)
class ReferenceUnits:
    """The units of reference images, on their device.

    Attributes:
        mean: of each unit at each position, ``[units, …]``.
        sample: units of at most `SAMPLE` evenly spaced reference images, ``[r, units, …]``.
        fractions: p, the fraction of each class among a unit's top images, ``[units, classes]`` on
            the CPU; 0 for a unit that fires on no image more than on others.
    """

    mean: Tensor
    sample: Tensor
    fractions: Tensor

    def replacement(
        self, ablation: AblationName, draws: int, keys: Sequence[tuple[int, ...]]
    ) -> Tensor:
        """What removed units of some images become (`cwx.functional.unit_contributions.Ablation`).

        Args:
            ablation: ``zero``; ``mean``: the mean at each position; ``resample``: the maps of other
                images of the sample, drawn without replacement.
            draws: at most so many other images.
            keys: one per image; the draws depend on it alone.
        """
        if ablation == "zero":
            return torch.zeros_like(self.mean)[None, None]
        if ablation == "mean":
            return self.mean[None, None]
        drawn = [
            torch.randperm(len(self.sample), generator=stream(_PURPOSE, *key))[:draws]
            for key in keys
        ]
        return self.sample[torch.stack(drawn).to(self.sample.device)]


@dataclass(kw_only=True)
class _Part:
    """The sums of one rank.

    Attributes:
        top: top images.
        total: the sum of the units in float64.
        sample: units by position among the reference images.
    """

    top: RunningTopK
    total: Tensor | int = 0
    sample: dict[int, Tensor]


def reference_indices(data: ImageData, others: Tensor, setting: str) -> Tensor:
    """The test images that are not evaluated themselves.

    Args:
        data: the images.
        others: indices of evaluated images, and of the originals of adversarial ones.
        setting: of their number, for messages.

    Raises:
        ValueError: there are none.
    """
    count = len(data.splits.test)
    is_reference = torch.ones(count, dtype=torch.bool)
    is_reference[others] = False
    if not is_reference.any():
        raise ValueError(
            f"{setting} takes all {count} test images, and units are compared with those of other "
            "images: give a smaller number"
        )
    return is_reference.nonzero()[:, 0]


@torch.no_grad()
def reference_units(
    read: Callable[[Tensor], tuple[Tensor, Tensor]],
    data: ImageData,
    indices: Tensor,
    *,
    activation: Activation,
    fraction: float,
    device: torch.device,
    ranks: Ranks = Ranks(),  # noqa: B008
) -> ReferenceUnits:
    """One pass over the reference images.

    Args:
        read: from normalised images to units ``[n, units, …]`` and logits.
        data: the images.
        indices: of the reference images among the test images.
        activation: from units to activations ``[n, units]``.
        fraction: top images of a unit as a fraction of the reference images; at least one.
        device: of the network.
        ranks: they divide the batches.
    """
    references = data.splits.test.at(indices)
    sampled = {*references.spread_indices(SAMPLE).tolist()}

    def compute() -> _Part:
        part = _Part(top=RunningTopK(max(1, round(fraction * len(indices)))), sample={})
        batches = normalized_batches(
            [references.images],
            data.normalization,
            size=data.batch_size,
            device=device,
            ranks=ranks,
        )
        for positions, images in batches:
            units, _ = read(images)
            part.top.add(activation(units), positions.to(device))
            part.total = part.total + units.double().sum(0).cpu()
            for position in sampled & {*positions.tolist()}:
                part.sample[position] = units[position - int(positions[0])].cpu()
        part.top = part.top.merged([])
        return part

    parts = ranks.collect(compute)
    sample = {p: units for part in parts for p, units in part.sample.items()}
    top = parts[0].top.merged(part.top for part in parts[1:]).top()
    labels = references.labels.cpu()[top.indices]
    stacked = torch.stack([sample[position] for position in sorted(sample)])
    total = torch.as_tensor(sum(part.total for part in parts))
    return ReferenceUnits(
        mean=(total / len(indices)).to(stacked).to(device),
        sample=stacked.to(device),
        fractions=class_fractions(labels, top.responding, len(data.classes)),
    )
