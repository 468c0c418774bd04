"""Unlearning the recovered trigger (Wang et al. 2019, §VI-B)."""

import logging
from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from torch import Tensor

from cwx.data.splits import ImageSet
from cwx.evaluations.outcome import Sources
from cwx.explanations.patterns import Attach, Triggers
from cwx.functional.class_names import ClassName, class_index, describe_class
from cwx.functional.rng import stream
from cwx.training.cure import Cure
from cwx.training.plan import Plan
from cwx.training.provider import Training, check_recipe
from cwx.training.stages import Factory
from cwx.training.subject import Subject

log = logging.getLogger(__name__)

CureStep = Callable[[Subject, Sources, Training], Cure | None]


class NoCure:
    """Leaves the network as it is."""

    def __call__(self, subject: Subject, sources: Sources, training: Training) -> None:
        return


class Unlearning:
    """Fine-tunes the first expert on images that carry the recovered trigger and keep their labels.

    The images are those test images that the search for the trigger used. A control is fine-tuned
    on the same images without the trigger.

    Args:
        source: the method that recovers triggers.
        label: the class whose trigger is unlearned, by name or index; ``None`` for the class with
            the smallest trigger, compared with the median of the bank if there is one.
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
        if plan.leaves.get(self.source) is not Triggers:
            raise ValueError(
                f"cure.source is {self.source!r}, which is no method of this study that leaves "
                f"triggers: add {self.source} to method=[…], or choose cure=none"
            )
        if self.label is not None:
            class_index(self.label, plan.data.classes, "cure.label")
        try:
            check_recipe(
                self.recipe,
                {"network": plan.networks["network"]},
                plan.data.training_view(plan.data.splits.test),
            )
        except ValueError as error:
            raise ValueError(f"in cure.recipe: {error}") from error

    def __call__(self, subject: Subject, sources: Sources, training: Training) -> Cure:
        """The networks after fine-tuning, read from the store or trained."""
        triggers = sources[self.source]
        assert isinstance(triggers, Triggers)
        label = self._label(subject, triggers)
        log.info("unlearning the trigger of class %s", describe_class(label, subject.data.classes))
        (position,) = (triggers.labels == label).nonzero()[:, 0].tolist()
        attach = triggers.attach(position)
        clean = subject.data.splits.test.at(triggers.searched)
        stamped = ImageSet(self._stamp(clean.images, attach), clean.labels)
        settings = training.configuration["cure"]["recipe"]
        fine_tuning = training.with_recipe(self.recipe, settings)
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
        return Cure(label=label, attach=attach, networks=networks, used=triggers.searched)

    def _label(self, subject: Subject, triggers: Triggers) -> int:
        if self.label is not None:
            return class_index(self.label, subject.data.classes, "cure.label")
        bank: Mapping[str, Tensor] = subject.bank.statistics
        values = -triggers.sizes.double().log()
        usual = bank.get(f"{self.source}/size")
        if usual is not None:
            values = values - usual.quantile(0.5, dim=0)[triggers.labels]
        return int(triggers.labels[values.argmax()])

    def _stamp(self, images: Tensor, attach: Attach) -> Tensor:
        count = max(1, round(self.fraction * len(images)))
        chosen = torch.randperm(len(images), generator=stream(self.seed))[:count]
        result = images.clone()
        overlaid = attach(images[chosen].float() / 255)
        result[chosen] = (255 * overlaid).round().to(torch.uint8)
        return result
