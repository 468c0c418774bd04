"""Clean accuracy and success rate of the study's backdoor (CWX, §5)."""

import torch
from torch import nn

from cwx.data.backdoor_plan import PlantedBackdoor
from cwx.data.datamodule import ImageData
from cwx.data.splits import ImageSet
from cwx.data.streamed_images import change_images
from cwx.evaluations.outcome import Outcome, Row, Sources, mean_over_networks, measure_networks
from cwx.evaluations.predictions import divided_accuracy
from cwx.functional.class_names import describe_class
from cwx.training.plan import Plan
from cwx.training.subject import Subject


class AttackSuccess:
    """Clean accuracy and attack success rate of the networks of `Subject.panel`.

    ``attack_success/<network>/accuracy`` is the accuracy on clean test images.
    ``attack_success/<network>/success`` is the fraction of the test images of all other classes
    that are classified as the target class once they carry the trigger; if each class has a target
    of its own (`AllToAll`), of all images, as the target of their class. Both are in 0-1. All
    networks but ``purified`` are trained on the corrupted images. Values are averaged over the
    networks of one name; the table ``attack_success`` adds standard deviations,
    ``attack_success_networks`` has a row per network.
    """

    on_all_ranks = True

    def check(self, plan: Plan) -> None:
        backdoor = require_backdoor(plan.data, "attack_success")
        others = _others(plan.data.splits.test, backdoor)
        if not len(others):
            raise ValueError(
                f"attack_success needs test images of classes other than {_target(plan.data)}, and "
                "there are none: choose another corruption.target"
            )
        if all(
            torch.equal(backdoor.trigger.apply(images), images) for images, _ in others.batches()
        ):
            raise ValueError(
                f"the trigger changes no pixel of the {len(others)} test images of classes other "
                f"than {_target(plan.data)}, so that attack_success would measure clean images: "
                "choose another corruption.trigger"
            )

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        data, backdoor = subject.data, require_backdoor(subject.data, "attack_success")
        triggered = attacked_images(backdoor, data.splits.test)

        def measure(network: nn.Module) -> list[Row]:
            success = divided_accuracy(subject, network, triggered)
            clean = divided_accuracy(subject, network, data.splits.test)
            return [{"accuracy": clean, "success": success}]

        rows = measure_networks(subject.panel(), measure)
        means = mean_over_networks(rows, values=("accuracy", "success"))
        return Outcome(
            metrics={
                f"attack_success/{row['network']}/{name}": float(row[name])
                for row in means
                for name in ("accuracy", "success")
            },
            tables={"attack_success": means, "attack_success_networks": rows},
        )


def attacked_images(backdoor: PlantedBackdoor, images: ImageSet) -> ImageSet:
    """Images of other classes than their target, with the trigger, labelled as the target."""
    others = _others(images, backdoor)
    everything = torch.arange(len(others))
    triggered = change_images(others.images, everything, backdoor.trigger.apply)
    return ImageSet(triggered, backdoor.targets(others.labels))


def _others(images: ImageSet, backdoor: PlantedBackdoor) -> ImageSet:
    """The images of other classes than their target."""
    return images.at(backdoor.targets(images.labels) != images.labels)


def _target(data: ImageData) -> str:
    backdoor = data.corrupted.backdoor
    if backdoor is None or backdoor.target is None:
        return "their target"
    return f"the target {describe_class(backdoor.target, data.classes)}"


def require_backdoor(data: ImageData, evaluation: str) -> PlantedBackdoor:
    """The backdoor in the training images.

    Args:
        data: the study's images.
        evaluation: its name in the configuration, for the message.

    Raises:
        ValueError: the training images have no backdoor.
    """
    backdoor = data.corrupted.backdoor
    if backdoor is None:
        raise ValueError(
            f"{evaluation} needs a backdoor, and this study's training images have none: choose "
            f"one such as corruption=badnets, or leave {evaluation} out of evaluation=[…]"
        )
    return backdoor
