"""Who makes adversarial images for a study to look at its networks with (Dong et al., §2.1; D1)."""

import json
import logging
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

from torch import Tensor, nn

from cwx.data.adversarial_set import AdversarialSet
from cwx.functional.attack_targets import check_targets
from cwx.functional.ensemble_attack import EnsembleAttack
from cwx.methods.ensemble_attack import Mislead
from cwx.networks.eval_mode import accuracy
from cwx.storage.shards import Shards
from cwx.storage.trajectories import Identity
from cwx.training.plan import Plan
from cwx.training.provider import Training
from cwx.training.subject import Subject

log = logging.getLogger(__name__)

Adversary = Callable[[Subject, Training], AdversarialSet | None]


class NoAdversary:
    """Real images alone."""

    def __call__(self, subject: Subject, training: Training) -> None:
        return


@dataclass(frozen=True)
class Member:
    """A network of an ensemble: its name in the study, itself, and what it is known by anywhere."""

    name: str
    network: nn.Module
    identity: Identity


class Ensemble:
    """Attacks test images on several networks together, and keeps the set in the store.

    Each image is taken to the classes that the members together hold for least likely. Studies in
    which the same networks go by other names, or by the same in another order, share a set.

    ``adversary/success/<member>`` is the share of the images, as bytes, that a member takes for
    the target, ``adversary/accuracy/<member>`` that of their originals that it labels rightly, both
    in 0-1, and ``adversary/distance`` how far the bytes are from these in L2, on `scale`.

    Args:
        members: the networks attacked, by name: a evaluation network, or a kind of expert, of each the first;
            ``None`` for the expert and all evaluation networks.
        targets: classes that each image is taken to, one adversarial image a class.
        images: at most so many test images, spread evenly; ``None`` for all.
        weight, scale, step, steps: of `EnsembleAttack`.
        batch_size: adversarial images at a time, which is brought to whole sets of `targets`; a set
            is kept and continued by such batches.

    Raises:
        ValueError: a setting is out of range, or a member is given twice.
    """

    def __init__(
        self,
        *,
        members: Sequence[str] | None,
        targets: int,
        images: int | None,
        weight: float,
        scale: float,
        step: float,
        steps: int,
        batch_size: int,
    ) -> None:
        if members is not None and len(set(members)) < max(1, len(members)):
            raise ValueError(
                f"adversary.members is {list(members)}: give one or more, each once, or null for "
                "the expert and all evaluation networks"
            )
        for name, value in (("batch_size", batch_size), ("targets", targets)):
            if value < 1:
                raise ValueError(f"adversary.{name} is {value}: give 1 or more")
        if images is not None and images < 1:
            raise ValueError(f"adversary.images is {images}: give 1 or more, or null for all")
        self.members, self.targets, self.images = members, targets, images
        self.attack = EnsembleAttack(weight=weight, scale=scale, step=step, steps=steps)
        self.batch_size = max(1, batch_size // targets) * targets

    def check(self, plan: Plan) -> None:
        if unknown := [name for name in self.members or () if name not in plan.names]:
            raise ValueError(
                f"adversary.members has {unknown[0]!r}, and this study attacks no such network: "
                f"give some of {', '.join(plan.names)}, or null for the expert and all evaluation networks"
            )
        check_targets(self.targets, len(plan.data.classes))
        if not len(plan.data.splits.test):
            raise ValueError(
                "adversary=ensemble attacks test images, and the data have none: give some, or "
                "choose adversary=none"
            )

    def __call__(self, subject: Subject, training: Training) -> AdversarialSet:
        """The set, whole and the same on every rank.

        Raises:
            ValueError: the members know different classes, or one labels the originals no better
                than by chance.
        """
        data, members = subject.data, self._members(subject, training)
        places = data.splits.test.places(self.images)
        identity = {
            "adversarial": {"targets": self.targets, "batch_size": self.batch_size}
            | {name: getattr(self.attack, name) for name in ("weight", "scale", "step", "steps")},
            "members": [member.identity for member in members],
            "data": data.test_fingerprint(),
            "images": len(places),
            "precision": training.configuration["precision"]["methods"],
        }
        shards = Shards(
            training.store.path(identity), count=len(places) * self.targets, size=self.batch_size
        )

        def build() -> Mislead:
            for member in members:
                self._check_member(member, subject)
            return Mislead(
                networks=[member.network for member in members],
                data=data,
                places=places,
                targets=self.targets,
                attack=self.attack,
                shards=shards,
                stage="adversarial images",
            )

        training.stages.make(build, shards, identity, training.store)
        names = [member.name for member in members]
        metrics = _metrics(names, shards)
        line = "%d adversarial images in %s, at a mean distance of %.4g; they succeed on %s"
        success = ", ".join(f"{n} {metrics[f'adversary/success/{n}']:.1%}" for n in names)
        log.info(line, shards.count, shards.folder, metrics["adversary/distance"], success)
        return AdversarialSet.of(shards, members=names, metrics=metrics)

    def _members(self, subject: Subject, training: Training) -> list[Member]:
        """In an order that does not depend on their names, by which losses are summed."""
        names = ["expert", *subject.evaluation_networks] if self.members is None else self.members
        members = [_member(name, subject, training) for name in names]
        return sorted(members, key=lambda member: json.dumps(member.identity, sort_keys=True))

    def _check_member(self, member: Member, subject: Subject) -> None:
        classes, device = len(subject.data.classes), subject.device
        batches = (
            (images.to(device), labels.to(device), total)
            for images, labels, total in subject.data.test_batches(self.images)
        )
        rate = accuracy(member.network.to(device), batches)
        if rate <= 1 / classes:
            raise ValueError(
                f"{member.name} of adversary.members labels {rate:.3g} of the test images rightly, "
                f"no better than chance among {classes} classes: it probably takes pixels of "
                "another range (data.mean, data.std) or knows the classes in another order "
                "(data.source.classes); correct that, or leave it out"
            )


def _member(name: str, subject: Subject, training: Training) -> Member:
    settings = training.configuration
    kind = (
        settings["evaluation_networks"][name]
        if name in subject.evaluation_networks
        else settings["network"]
    )
    trajectory, epoch = subject.state_of(name)
    return Member(
        name,
        # Others, too, use the evaluation networks, where they are.
        deepcopy(subject.explained(name)),
        {"network": kind, "trained": trajectory.identity, "epoch": epoch},
    )


def _metrics(names: Sequence[str], shards: Shards) -> dict[str, float]:
    def mean(tensor: Tensor) -> list[float]:
        return [float(value) for value in tensor.double().mean(0).view(-1)]

    rates = {kind: mean(shards.tensor(kind)) for kind in ("reached", "right")}
    return {
        **{f"adversary/success/{n}": v for n, v in zip(names, rates["reached"], strict=True)},
        **{f"adversary/accuracy/{n}": v for n, v in zip(names, rates["right"], strict=True)},
        "adversary/distance": mean(shards.tensor("distance_rounded"))[0],
    }
