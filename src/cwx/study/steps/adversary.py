"""Making the adversarial images of a study (Dong et al., §2.1)."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor, nn

from cwx.data.adversarial_set import AdversarialSet
from cwx.functional.attack_targets import check_targets
from cwx.functional.ensemble_attack import EnsembleAttack
from cwx.methods.ensemble_attack import EnsembleAttacker
from cwx.networks.eval_mode import accuracy
from cwx.storage.shards import Shards
from cwx.storage.store_entries import digest
from cwx.storage.trajectories import Identity
from cwx.training.own_code import own_code
from cwx.training.plan import Plan
from cwx.training.provider import Training
from cwx.training.subject import Subject

log = logging.getLogger(__name__)

Adversary = Callable[[Subject, Training], AdversarialSet | None]


# The kind of experts that only a study with fine-tuning has.
FINE_TUNED = "fine-tuned"


class NoAdversary:
    """Makes no adversarial images."""

    def __call__(self, subject: Subject, training: Training) -> None:
        return


@dataclass(frozen=True)
class Member:
    """A network of an ensemble.

    Attributes:
        name: its name in the study.
        network: the network.
        identity: identifies the network in the store, independently of its name.
    """

    name: str
    network: nn.Module
    identity: Identity


class Ensemble:
    """Attacks an ensemble of networks with test images, and saves the set in the store.

    Each image is perturbed towards the k classes of lowest mean ensemble probability. The set does
    not depend on the names and the order of the networks, so that studies with the same networks
    share it.

    Metrics: ``adversary/success/<member>``, the fraction (0-1) of adversarial images, as bytes,
    that a member classifies as the target; ``adversary/accuracy/<member>``, the fraction (0-1) of
    their originals that it classifies correctly; ``adversary/distance``, the mean L2 distance of
    the images in bytes from their originals, in units of `scale`.

    Args:
        members: names of the attacked networks: an evaluation network, or a kind of expert such as
            ``fine-tuned``; the first network of each name is used. ``None`` for the expert and all
            evaluation networks; an evaluation network that is the expert counts once.
        adaptive: the fine-tuned expert takes the place of the expert among these; `members` is
            ``None``.
        targets: k, the target classes per image; one adversarial image per class.
        images: largest number of test images, spread evenly; ``None`` for all.
        weight, scale, step, steps, epsilon: see `EnsembleAttack`.
        batch_size: adversarial images per batch, rounded down to a multiple of `targets` (at least
            `targets`); a set is written and resumed batch by batch.

    Raises:
        ValueError: a setting is out of range, a member is repeated, or `adaptive` has members.
    """

    def __init__(
        self,
        *,
        members: Sequence[str] | None,
        adaptive: bool,
        targets: Annotated[int, ">= 1"],
        images: Annotated[int, ">= 1"] | None,
        weight: Annotated[float, ">= 0"],
        scale: Annotated[float, "> 0, <= 65535"],
        step: Annotated[float, "> 0"],
        steps: Annotated[int, ">= 1"],
        epsilon: Annotated[float, "> 0, <= 65535"] | None,
        batch_size: Annotated[int, ">= 1"],
    ) -> None:
        if members is not None and len(set(members)) < max(1, len(members)):
            raise ValueError(
                f"adversary.members is {list(members)}: give one or more, each once, or null for "
                "the expert and all evaluation networks"
            )
        if adaptive and members is not None:
            raise ValueError(
                f"adversary.adaptive is true, and adversary.members is {list(members)}: give "
                "adversary.members=null, or name the members and set adversary.adaptive=false"
            )
        for name, value in (("batch_size", batch_size), ("targets", targets)):
            if value < 1:
                raise ValueError(f"adversary.{name} is {value}: give 1 or more")
        if images is not None and images < 1:
            raise ValueError(f"adversary.images is {images}: give 1 or more, or null for all")
        self.members, self.adaptive = members, adaptive
        self.targets, self.images = targets, images
        self.attack = EnsembleAttack(
            weight=weight, scale=scale, step=step, steps=steps, epsilon=epsilon
        )
        self.batch_size = max(1, batch_size // targets) * targets

    def check(self, plan: Plan) -> None:
        known = plan.kinds or plan.names
        if self.adaptive or FINE_TUNED in (self.members or ()):
            self._check_fine_tuned(known)
        if unknown := [name for name in self.members or () if name not in known]:
            raise ValueError(
                f"adversary.members has {unknown[0]!r}, but this study has no such network: give "
                f"some of {', '.join(known)}, or null for the expert and all evaluation networks"
            )
        check_targets(self.targets, len(plan.data.classes))
        if not len(plan.data.splits.test):
            raise ValueError(
                "adversary=ensemble attacks test images, but the data have none: choose data with "
                "test images, or adversary=none"
            )

    def _check_fine_tuned(self, known: Sequence[str]) -> None:
        if FINE_TUNED not in known:
            setting = "adaptive is true" if self.adaptive else f"members has {FINE_TUNED!r}"
            raise ValueError(
                f"adversary.{setting}, but this study does not fine-tune: choose "
                "fine_tuning=consistency, or adversary=ensemble, which attacks the networks before "
                "fine-tuning"
            )

    def __call__(self, subject: Subject, training: Training) -> AdversarialSet:
        """The complete set of adversarial images, the same on every rank.

        Raises:
            ValueError: the members have different numbers of classes, or the test accuracy of a
                member is at chance.
        """
        data, members = subject.data, self._members(subject, training)
        indices = data.splits.test.spread_indices(self.images)
        is_part = len(indices) < len(data.splits.test)
        identity = {
            "adversarial": {"targets": self.targets, "batch_size": self.batch_size}
            | {name: getattr(self.attack, name) for name in ("weight", "scale", "step", "steps")}
            # Sets without a bound keep the identity that they had before there were bounds.
            | ({} if self.attack.epsilon is None else {"epsilon": self.attack.epsilon}),
            "members": [member.identity for member in members],
            "data": data.test_fingerprint(),
            "images": len(indices),
            # Of a part of the images, which.
            **({"selection": digest({"at": indices.tolist()})} if is_part else {}),
            "precision": training.configuration["precision"]["methods"],
        }
        shards = Shards(
            training.store.path(identity), count=len(indices) * self.targets, size=self.batch_size
        )

        def build() -> EnsembleAttacker:
            for member in members:
                self._check_member(member, subject)
            return EnsembleAttacker(
                networks=[member.network for member in members],
                data=data,
                indices=indices,
                targets=self.targets,
                attack=self.attack,
                shards=shards,
                stage="adversarial images",
            )

        training.stages.write_shards(build, shards, identity, training.store)
        names = [member.name for member in members]
        metrics = _metrics(names, shards)
        line = "%d adversarial images in %s: mean distance %.4g, success rates: %s"
        success = ", ".join(f"{n} {metrics[f'adversary/success/{n}']:.1%}" for n in names)
        log.info(line, shards.count, shards.folder, metrics["adversary/distance"], success)
        attacked = {_key(member.identity) for member in members}
        return AdversarialSet.from_shards(
            shards,
            members=names,
            attacked=[
                name
                for name in subject.names
                if _key(_identity(name, subject, training)) in attacked
            ],
            metrics=metrics,
        )

    def _members(self, subject: Subject, training: Training) -> list[Member]:
        """The members, in an order that does not depend on their names.

        The order fixes the order of summation of their losses.
        """
        names = ["expert", *subject.evaluation_networks] if self.members is None else self.members
        by_identity: dict[str, Member] = {}
        for member in (_member(name, subject, training) for name in names):
            known = by_identity.setdefault(_key(member.identity), member)
            if known is not member and self.members is not None:
                raise ValueError(
                    f"adversary.members has {known.name!r} and {member.name!r}, which are the same "
                    "trained network: remove one, or give null, which attacks each network once"
                )
        if self.adaptive:
            by_identity.pop(_key(_identity("expert", subject, training)))
            fine_tuned = _member(FINE_TUNED, subject, training)
            by_identity[_key(fine_tuned.identity)] = fine_tuned
        return [by_identity[identity] for identity in sorted(by_identity)]

    def _check_member(self, member: Member, subject: Subject) -> None:
        classes = len(subject.data.classes)
        test_accuracy = accuracy(member.network, subject.data.test_batches(self.images))
        if test_accuracy <= 1 / classes:
            remedy = (
                "fine-tune it more gently, with a lower fine_tuning.recipe.optimizer.lr or another "
                "fine_tuning.recipe"
                if member.name == FINE_TUNED
                else "check the pixel range (data.mean, data.std) and the order of classes "
                "(data.source.classes) that it was trained with"
            )
            raise ValueError(
                f"the test accuracy of {member.name} in adversary.members is {test_accuracy:.3g}, "
                f"at chance for {classes} classes: {remedy}, or remove it from adversary.members"
            )


def _key(identity: Identity) -> str:
    """Equal for the same trained network under two names."""
    return json.dumps(identity, sort_keys=True)


def _member(name: str, subject: Subject, training: Training) -> Member:
    identity = _identity(name, subject, training)
    return Member(name, subject.first_network(name), identity)


def _identity(name: str, subject: Subject, training: Training) -> Identity:
    """What defines the first network of a name, whatever the name."""
    settings = training.configuration
    kind = (
        settings["evaluation_networks"][name]
        if name in subject.evaluation_networks
        else settings["network"]
    )
    trajectory, epoch = subject.state_of(name)
    code = own_code(kind)
    return {
        **({"code": code} if code else {}),
        "network": kind,
        "trained": trajectory.identity,
        "epoch": epoch,
    }


def _metrics(names: Sequence[str], shards: Shards) -> dict[str, float]:
    def mean(tensor: Tensor) -> list[float]:
        return [float(value) for value in tensor.double().mean(0).view(-1)]

    fractions = {kind: mean(shards.tensor(kind)) for kind in ("reached", "right")}
    return {
        **{f"adversary/success/{n}": v for n, v in zip(names, fractions["reached"], strict=True)},
        **{f"adversary/accuracy/{n}": v for n, v in zip(names, fractions["right"], strict=True)},
        "adversary/distance": mean(shards.tensor("distance_rounded"))[0],
    }
