"""Erasing the direction of the recovered triggers from the output layer (Belrose et al. 2023)."""

import copy
import logging
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from cwx.evaluations.outcome import Sources
from cwx.functional.class_names import ClassName, describe_class
from cwx.functional.concept_erasure import erase_directions
from cwx.functional.rng import stream
from cwx.networks.layers import find_layer
from cwx.study.steps.output_layer import output_features, output_layer
from cwx.study.steps.recovered_trigger import Suspected, check_sources, recovered_overlays
from cwx.training.build import build_network
from cwx.training.cure import Cure
from cwx.training.plan import Plan
from cwx.training.provider import Training
from cwx.training.subject import Subject

log = logging.getLogger(__name__)


class Erasure:
    """Erases from the output layer the directions in which recovered triggers move its inputs.

    The direction of a trigger is the mean change of the inputs that it causes, over the images of
    other classes that the searches used (`cwx.functional.concept_erasure`). A control has as many
    directions erased that no trigger causes: differences of the means of two random halves of
    these images.

    Args:
        sources: the methods that recover triggers or universal perturbations; all of the class are
            erased, and the first one is measured.
        label: the class whose triggers are erased, by name or index; ``None`` for the class that
            the verdict of the study suspects; without a verdict, for the class with the smallest
            trigger.
        strength: 1 leaves an image with a trigger the logits that it has without, on average; above
            1 it moves them away from the class.
        layer: the name of the linear layer that gives the logits; ``None`` for the last.
        seed: of the control.
    """

    def __init__(
        self,
        *,
        sources: Annotated[Sequence[str], "not empty, distinct"],
        label: ClassName | None,
        strength: Annotated[float, "> 0, <= 2"],
        layer: str | None,
        seed: Annotated[int, ">= 0, < 2**63"],
    ) -> None:
        self.sources, self.label, self.strength = tuple(sources), label, strength
        self.layer, self.seed = layer, seed

    def check(self, plan: Plan) -> None:
        check_sources(plan, self.sources, self.label)
        network = build_network(plan.networks["network"], plan.data, seed=0)
        name, layer = output_layer(network, self.layer)
        if layer.bias is None:
            raise ValueError(
                f"cure=erase changes the bias of the output layer, and {name!r} of "
                f"{type(network).__name__} has none: choose cure=unlearn or cure=prune"
            )

    def __call__(
        self,
        subject: Subject,
        sources: Sources,
        training: Training,
        suspected: Suspected | None,
    ) -> Cure:
        """The network without the directions and its control.

        Raises:
            ValueError: the layer does not give the logits of the network, or its inputs are the
                same for all images.
        """
        label, overlays, used = recovered_overlays(
            subject, sources, self.sources, self.label, suspected
        )
        network = subject.first_network("expert")
        name, _ = output_layer(network, self.layer)
        test = subject.data.splits.test.at(used).to(subject.device)
        units, others = test.images[:].float() / 255, test.labels != label
        clean = output_features(subject, network, self.layer, units)
        triggered = [
            output_features(subject, network, self.layer, attach(units[others]))
            for attach in overlays
        ]
        shifts = torch.stack([(own - clean[others]).mean(0) for own in triggered])
        cured = self._without(network, name, clean, shifts)
        log.info(
            "directions erased from the inputs of %s: %d; the recovered triggers of class %s send "
            "%s of the images of the searches to the class, %s before",
            name,
            len(shifts),
            describe_class(label, subject.data.classes),
            _rates(cured, name, triggered, label),
            _rates(network, name, triggered, label),
        )
        return Cure(
            label=label,
            attach=overlays[0],
            networks={
                "erased": cured,
                "control": self._without(network, name, clean, self._random(clean, len(shifts))),
            },
            used=used,
        )

    def _random(self, features: Tensor, count: int) -> Tensor:
        """Differences ``[count, d]`` of the means of two random halves of the features."""
        half = len(features) // 2
        orders = [
            torch.randperm(len(features), generator=stream(self.seed, i)) for i in range(count)
        ]
        return torch.stack(
            [features[order[:half]].mean(0) - features[order[half:]].mean(0) for order in orders]
        )

    def _without(
        self, network: nn.Module, name: str, features: Tensor, directions: Tensor
    ) -> nn.Module:
        """A copy of the network in whose output layer the directions are erased."""
        result = copy.deepcopy(network)
        layer = find_layer(result, name)
        assert isinstance(layer, nn.Linear)
        weight, bias = erase_directions(
            layer.weight, layer.bias, features, directions, self.strength
        )
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        return result


@torch.no_grad()
def _rates(network: nn.Module, name: str, triggered: Sequence[Tensor], label: int) -> str:
    """The success of each trigger, of the inputs of the output layer with it, as text."""
    layer = find_layer(network, name)
    rates = [(layer(own).argmax(1) == label).double().mean() for own in triggered]
    return " and ".join(f"{float(rate):.3f}" for rate in rates)
