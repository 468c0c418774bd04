"""Contributions, flips and curves of images, block by block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cwx.data.datamodule import ImageData
from cwx.evaluations.contributions.images import EvaluatedImages
from cwx.evaluations.contributions.reference import ABLATIONS, AblationName, ReferenceUnits
from cwx.evaluations.neurons.top_images import Activation
from cwx.functional.prediction_difference import prediction_differences
from cwx.functional.rng import stream
from cwx.functional.unit_contributions import (
    Ablation,
    first_flip,
    greedy_removal,
    logits_along,
    logits_without_each,
    margin,
)
from cwx.networks.finite_logits import finite_logits
from cwx.networks.later_layers import LaterLayers
from cwx.training.ranks import Ranks

# The logits whose contributions are kept, in this order.
ROLES = ("predicted", "true", "target")
# Orders of units, from the first to remove.
CURVE_ORDERS = ("contribution", "difference", "activation", "random")
# Images at once: the logits without each unit of an image take units · classes numbers.
BLOCK = 16
_PURPOSE = 1261


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Of some images, on the CPU.

    Attributes:
        logits: ``[n, K]`` in float64.
        contributions: by ablation, of each unit to the logits of `ROLES`, ``[n, units, 3]``; NaN
            to that of a target which the image does not have.
        differences: by ablation, the PD of each unit, ``[n, units]``.
        flips: by order, units until the prediction flips, ``[n]``, ∞ if it does not.
        deletion, insertion: by order, the probability of the predicted class without, or with
            only, the first 0 to all units, ``[n, units + 1]``.
    """

    logits: Tensor
    contributions: Mapping[str, Tensor]
    differences: Mapping[str, Tensor]
    flips: Mapping[str, Tensor]
    deletion: Mapping[str, Tensor]
    insertion: Mapping[str, Tensor]

    @property
    def predicted(self) -> Tensor:
        return self.logits.argmax(1)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Measures images of one network.

    Attributes:
        later: the network's layers after the units.
        reference: units of reference images.
        ablation: that of flips and curves.
        draws: of resample ablation.
        limit: at most so many units are removed greedily.
        activation: from units to activations, for the order by them.
        correlation: C of the classes, for PD.
        device: of the network.
        chunk: rows of units in a pass.
    """

    later: LaterLayers
    reference: ReferenceUnits
    ablation: AblationName
    draws: int
    limit: int
    activation: Activation
    correlation: Tensor
    device: torch.device
    chunk: int

    def __call__(self, images: EvaluatedImages, data: ImageData, ranks: Ranks) -> Measures:
        """The measures of all images, in order.

        Args:
            images: to measure.
            data: gives the normalisation.
            ranks: they divide the blocks.
        """
        measure = partial(self._block, images, data)
        return _joined(ranks.map(measure, images.blocks(BLOCK)))

    @torch.no_grad()
    def _block(self, images: EvaluatedImages, data: ImageData, positions: Tensor) -> Measures:
        normalized = data.normalization.from_bytes(images.read(positions)).to(self.device)
        units, logits = self.later.read(normalized)
        logits = finite_logits(logits).double()
        predicted = logits.argmax(1)
        keys = [images.keys[position] for position in positions.tolist()]
        chosen = self._ablation(self.ablation, normalized, units, keys)
        whole = _Whole(
            logits=logits,
            predicted=predicted,
            roles=torch.stack(
                [predicted.cpu(), images.labels[positions], images.targets[positions]]
            ).T.to(self.device),
        )
        alone = {
            name: self._alone(
                chosen if name == self.ablation else self._ablation(name, normalized, units, keys),
                whole,
            )
            for name in ABLATIONS
        }
        orders = {
            "contribution": _descending(alone[self.ablation].losses),
            "difference": _descending(alone[self.ablation].differences),
            "activation": _descending(self.activation(units)),
            "random": _random_orders(keys, units.shape[1]).to(self.device),
        }
        groups = {name: _along(chosen, order, predicted) for name, order in orders.items()}
        flips = {name: of_order.flips for name, of_order in groups.items()}
        flips["greedy"] = greedy_removal(chosen, predicted, self.limit)[1]
        return Measures(
            logits=logits.cpu(),
            contributions={name: a.contributions.cpu() for name, a in alone.items()},
            differences={name: a.differences.cpu() for name, a in alone.items()},
            flips={name: values.cpu() for name, values in flips.items()},
            deletion={name: g.deletion.cpu() for name, g in groups.items()},
            insertion={name: g.insertion.cpu() for name, g in groups.items()},
        )

    def _ablation(
        self,
        name: AblationName,
        normalized: Tensor,
        units: Tensor,
        keys: Sequence[tuple[int, ...]],
    ) -> Ablation:
        return Ablation(
            later=partial(self.later.logits, normalized),
            units=units,
            replacement=self.reference.replacement(name, self.draws, keys),
            chunk=self.chunk,
        )

    def _alone(self, ablation: Ablation, whole: "_Whole") -> "_Alone":
        """What the units of some images do alone."""
        without = logits_without_each(ablation)
        before = margin(whole.logits[:, None], whole.predicted)
        return _Alone(
            contributions=_of_roles(whole.logits[:, None] - without, whole.roles),
            differences=prediction_differences(
                whole.logits.softmax(1), without.softmax(2), self.correlation.to(self.device)
            ),
            losses=before - margin(without, whole.predicted),
        )


@dataclass(frozen=True, kw_only=True)
class _Whole:
    """The predictions of images with all units.

    Attributes:
        logits: ``[n, K]`` in float64.
        predicted: the classes of highest logit, ``[n]``.
        roles: the classes of `ROLES`, ``[n, 3]``, −1 for none.
    """

    logits: Tensor
    predicted: Tensor
    roles: Tensor


@dataclass(frozen=True, kw_only=True)
class _Alone:
    """Effects of the removal of each unit alone, by one ablation.

    Attributes:
        contributions, differences: see `Measures`.
        losses: what the margin of the prediction loses, ``[n, units]``.
    """

    contributions: Tensor
    differences: Tensor
    losses: Tensor


@dataclass(frozen=True, kw_only=True)
class _Groups:
    """Effects of the removal of units one after another; the attributes are those of `Measures`."""

    flips: Tensor
    deletion: Tensor
    insertion: Tensor


def _along(ablation: Ablation, order: Tensor, predicted: Tensor) -> _Groups:
    deleted = logits_along(ablation, order)
    inserted = logits_along(ablation, order, insert=True)
    return _Groups(
        flips=first_flip(deleted, predicted),
        deletion=_probability(deleted, predicted),
        insertion=_probability(inserted, predicted),
    )


def _descending(values: Tensor) -> Tensor:
    return values.argsort(dim=1, descending=True, stable=True)


def _of_roles(contributions: Tensor, roles: Tensor) -> Tensor:
    """Contributions to some logits, ``[n, units, 3]``.

    Args:
        contributions: to all logits, ``[n, units, K]``.
        roles: classes ``[n, 3]``, −1 for none.
    """
    indices = roles.clamp(min=0)[:, None].expand(-1, contributions.shape[1], -1)
    return contributions.gather(2, indices).masked_fill(roles[:, None] < 0, torch.nan)


def _random_orders(keys: Sequence[tuple[int, ...]], count: int) -> Tensor:
    orders = [torch.randperm(count, generator=stream(_PURPOSE, *key)) for key in keys]
    return torch.stack(orders)


def _probability(logits: Tensor, predicted: Tensor) -> Tensor:
    """The probability of a class by variant, ``[n, variants]`` from logits ``[n, variants, K]``."""
    classes = predicted[:, None, None].expand(*logits.shape[:2], 1)
    return logits.softmax(2).gather(2, classes)[..., 0]


def _joined(parts: Sequence[Measures]) -> Measures:
    def join(name: str) -> dict[str, Tensor]:
        first: Mapping[str, Tensor] = getattr(parts[0], name)
        return {key: torch.cat([getattr(part, name)[key] for part in parts]) for key in first}

    return Measures(
        logits=torch.cat([part.logits for part in parts]),
        contributions=join("contributions"),
        differences=join("differences"),
        flips=join("flips"),
        deletion=join("deletion"),
        insertion=join("insertion"),
    )
