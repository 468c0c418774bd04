"""Removing the recovered trigger from a network (Wang et al. 2019, §VI-B and §VI-C)."""

import copy
import logging
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor, nn

from cwx.data.splits import ImageSet
from cwx.evaluations.outcome import Sources
from cwx.explanations.patterns import Attach
from cwx.functional.class_names import ClassName, describe_class
from cwx.functional.neuron_pruning import (
    pruning_order,
    smallest_sufficient,
    success_by_count,
)
from cwx.functional.rng import stream
from cwx.networks.layers import find_layer
from cwx.study.steps.output_layer import output_features, output_layer
from cwx.study.steps.recovered_trigger import Suspected, check_source, recovered_trigger
from cwx.training.build import build_network, trained_network
from cwx.training.cure import Cure
from cwx.training.plan import Plan
from cwx.training.provider import Training, check_recipe
from cwx.training.stages import Factory
from cwx.training.subject import Subject

log = logging.getLogger(__name__)

CureStep = Callable[[Subject, Sources, Training, Suspected | None], Cure | None]


class NoCure:
    """Leaves the network as it is."""

    def __call__(
        self,
        subject: Subject,
        sources: Sources,
        training: Training,
        suspected: Suspected | None,
    ) -> None:
        return


class Unlearning:
    """Fine-tunes the first expert on images that carry the recovered trigger and keep their labels.

    The images are those test images that the search for the trigger used. A control is fine-tuned
    on the same images without the trigger.

    Args:
        source: the method that recovers triggers.
        label: the class whose trigger is unlearned, by name or index; ``None`` for the class that
            the verdict of the study suspects; without a verdict, for the class with the smallest
            trigger.
        fraction: of the images that carry the trigger, 0-1.
        recipe: the training recipe of the fine-tuning.
        seed: of the batches and of the choice of images.
    """

    def __init__(
        self,
        *,
        source: str,
        label: ClassName | None,
        fraction: Annotated[float, "> 0, <= 1"],
        recipe: Factory,
        seed: Annotated[int, ">= 0, < 2**63"],
    ) -> None:
        self.source, self.label, self.fraction = source, label, fraction
        self.recipe, self.seed = recipe, seed

    def check(self, plan: Plan) -> None:
        check_source(plan, self.source, self.label)
        try:
            check_recipe(
                self.recipe,
                {"network": plan.networks["network"]},
                plan.data.training_view(plan.data.splits.test),
            )
        except ValueError as error:
            raise ValueError(f"in cure.recipe: {error}") from error

    def __call__(
        self,
        subject: Subject,
        sources: Sources,
        training: Training,
        suspected: Suspected | None,
    ) -> Cure:
        """The networks after fine-tuning, read from the store or trained."""
        triggers, label, attach = recovered_trigger(
            subject, sources, self.source, self.label, suspected
        )
        log.info("unlearning the trigger of class %s", describe_class(label, subject.data.classes))
        clean = subject.data.splits.test.at(triggers.searched)
        stamped = ImageSet(self._stamp(clean.images[:], attach), clean.labels)
        settings = training.configuration["cure"]["recipe"]
        fine_tuning = training.with_recipe(self.recipe, settings, part="cure")
        networks = {
            name: fine_tuning.fine_tuned(
                name,
                subject.trajectories[:1],
                epoch=subject.epoch,
                seed=self.seed,
                data=subject.data.training_view(images),
            )[0]
            for name, images in (("unlearned", stamped), ("control", clean))
        }
        return Cure(
            label=label,
            attach=attach,
            networks={
                name: trained_network(subject.factory, subject.data, trajectory)
                for name, trajectory in networks.items()
            },
            used=triggers.searched,
        )

    def _stamp(self, images: Tensor, attach: Attach) -> Tensor:
        count = max(1, round(self.fraction * len(images)))
        chosen = torch.randperm(len(images), generator=stream(self.seed))[:count]
        result = images.clone()
        overlaid = attach(images[chosen].float() / 255)
        result[chosen] = (255 * overlaid).round().to(torch.uint8)
        return result


class Pruning:
    """Sets those inputs of the output layer to 0 which the recovered trigger activates most.

    The fewest neurons are pruned that reduce the success of the trigger to `remaining_success` on
    the test images that the search for the trigger used. A control has as many random neurons
    pruned.

    Args:
        source: the method that recovers triggers.
        label: the class whose trigger is removed, by name or index; ``None`` for the class that
            the verdict of the study suspects; without a verdict, for the class with the smallest
            trigger.
        remaining_success: the success of the trigger at which pruning ends, 0-1.
        fraction: of the neurons that may be pruned, 0-1.
        layer: the name of the linear layer that gives the logits; ``None`` for the last.
        seed: of the neurons of the control.
    """

    def __init__(
        self,
        *,
        source: str,
        label: ClassName | None,
        remaining_success: Annotated[float, ">= 0, <= 1"],
        fraction: Annotated[float, "> 0, <= 1"],
        layer: str | None,
        seed: Annotated[int, ">= 0, < 2**63"],
    ) -> None:
        self.source, self.label, self.remaining_success = source, label, remaining_success
        self.fraction, self.layer, self.seed = fraction, layer, seed

    def check(self, plan: Plan) -> None:
        check_source(plan, self.source, self.label)
        network = build_network(plan.networks["network"], plan.data, seed=0)
        output_layer(network, self.layer)

    def __call__(
        self,
        subject: Subject,
        sources: Sources,
        training: Training,
        suspected: Suspected | None,
    ) -> Cure:
        """The pruned network and its control.

        Raises:
            ValueError: the layer does not give the logits of the network.
        """
        triggers, label, attach = recovered_trigger(
            subject, sources, self.source, self.label, suspected
        )
        network = subject.first_network("expert")
        name, layer = output_layer(network, self.layer)
        test = subject.data.splits.test.at(triggers.searched).to(subject.device)
        units = test.images[test.labels != label].float() / 255
        clean = output_features(subject, network, self.layer, units)
        triggered = output_features(subject, network, self.layer, attach(units))
        order = pruning_order(clean, triggered)
        most = max(1, round(self.fraction * len(order)))
        rates = success_by_count(triggered, layer.weight, layer.bias, order, label, most)
        count = smallest_sufficient(rates, self.remaining_success)
        log.info(
            "pruning %d of %d neurons of %s: the trigger of class %s sends %.3f of the images of "
            "the search to the class, %.3f before%s",
            count,
            len(order),
            name,
            describe_class(label, subject.data.classes),
            rates[count],
            rates[0],
            ""
            if rates[count] <= self.remaining_success
            else f"; cure.remaining_success is {self.remaining_success:g}",
        )
        random = torch.randperm(len(order), generator=stream(self.seed)).to(order.device)
        return Cure(
            label=label,
            attach=attach,
            networks={
                kind: _pruned(network, name, neurons[:count])
                for kind, neurons in (("pruned", order), ("control", random))
            },
            used=triggers.searched,
        )


def _pruned(network: nn.Module, layer: str, neurons: Tensor) -> nn.Module:
    """A copy of the network in which these inputs of a linear layer have no effect."""
    result = copy.deepcopy(network)
    linear = find_layer(result, layer)
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear.weight[:, neurons] = 0
    return result
