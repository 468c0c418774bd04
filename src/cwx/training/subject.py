"""What a study explains: images, a kind of network, and trained examples of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cwx.data.adversarial_set import AdversarialSet
from cwx.data.datamodule import ImageData
from cwx.explanations.class_images import ClassImages
from cwx.explanations.images import Explanations
from cwx.storage.trajectories import Trajectory
from cwx.training.build import NetworkFactory, build_network, trained_network

# Of trained networks of the explained kind, by what they are to a study.
KINDS = frozenset({"expert", "fine-tuned", "held-out", "clean", "purified"})


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The object of a study, given to every method and evaluation.

    Attributes:
        data: the images, loaded.
        factory: builds the explained kind of network for the data.
        trajectories: the experts that methods may use, by seed.
        early: more of them, trained too short to be judged.
        held_out: experts of other seeds, for evaluation alone.
        evaluation networks: networks of other architectures, trained to the end, frozen, by name, one a seed.
        judged: the trajectories of the evaluation networks, by the same names, in the same order.
        clean: experts trained on the images before any corruption.
        fine-tuned: the experts of `trajectories`, each trained further by another recipe.
        adversarial: images that networks of the study were attacked with, if they were.
        dataset_construction: numbers that tell how the training images were constructed, if they were.
        left_out: boolean mask ``[n]``, the training images that a purification took for poisoned, if one
            was asked.
        purified: experts trained without these.
        epoch: the networks of all these trajectories but the fine-tuned are shown as they were after
            it; ``None`` for the last of each.
        device: where networks that explain or evaluation network are to run.
    """

    data: ImageData
    factory: NetworkFactory
    trajectories: Sequence[Trajectory]
    held_out: Sequence[Trajectory]
    evaluation_networks: Mapping[str, Sequence[nn.Module]]
    evaluation_trajectories: Mapping[str, Sequence[Trajectory]] = field(default_factory=dict)
    early: Sequence[Trajectory] = ()
    clean: Sequence[Trajectory] = ()
    fine_tuned: Sequence[Trajectory] = ()
    adversarial: AdversarialSet | None = None
    dataset_construction: Mapping[str, float] = field(default_factory=dict)
    left_out: Tensor | None = None
    purified: Sequence[Trajectory] = ()
    epoch: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def fitted(self) -> Sequence[Trajectory]:
        """All experts that methods may use."""
        return (*self.trajectories, *self.early)

    def network(self) -> nn.Module:
        """A fresh network of the explained kind, its weights of no meaning."""
        return build_network(self.factory, self.data, seed=0)

    def trained(self, trajectory: Trajectory, epoch: int | None = None) -> nn.Module:
        """The network of `trajectory` after `epoch` (by default that of the study), frozen, in
        eval mode.

        Raises:
            ValueError: the trajectory was recorded for another network, or not at that epoch.
        """
        shown = self.epoch if epoch is None else epoch
        return trained_network(self.factory, self.data, trajectory, shown)

    def experts(self) -> dict[str, list[nn.Module]]:
        """The trained networks of the explained kind, by what they are to the study.

        ``expert`` are those that methods saw, ``fine_tuned`` the same trained further, ``held-out``
        those that no method saw, ``clean`` those trained on uncorrupted and ``purified`` those
        trained on filtered images; what a study lacks is left out.
        """
        return {
            kind: [self._as_shown(kind, t) for t in found] for kind, found in self._kinds().items()
        }

    def _as_shown(self, kind: str, trajectory: Trajectory) -> nn.Module:
        return self.trained(trajectory, self._epoch(kind, trajectory))

    def _epoch(self, kind: str, trajectory: Trajectory) -> int:
        # FineTune networks begin where the study's epoch is, and are shown at their end.
        chosen = None if kind == "fine-tuned" else self.epoch
        return trajectory.epochs if chosen is None else chosen

    def _kinds(self) -> dict[str, Sequence[Trajectory]]:
        kinds = {
            "expert": self.trajectories,
            "fine-tuned": self.fine_tuned,
            "held-out": self.held_out,
            "clean": self.clean,
            "purified": self.purified,
        }
        return {kind: found for kind, found in kinds.items() if found}

    def explained(self, kind: str) -> nn.Module:
        """The first network of a kind, or of a evaluation network, by name: the one whose patterns are sought.

        Raises:
            ValueError: the study has none.
        """
        kinds = self._kinds()
        if kind in kinds:
            return self._as_shown(kind, kinds[kind][0])
        if kind in self.evaluation_networks:
            return self.evaluation_networks[kind][0]
        raise ValueError(
            f"this study has no network called {kind!r} to explain: choose one of "
            f"{', '.join([*kinds, *self.evaluation_networks])}"
        )

    def state_of(self, name: str) -> tuple[Trajectory, int]:
        """What `explained` shows by that name: a trajectory, and the epoch."""
        found = {**self.evaluation_trajectories, **self._kinds()}[name][0]
        return found, found.epochs if name in self.evaluation_trajectories else self._epoch(
            name, found
        )

    def panel(self) -> dict[str, list[nn.Module]]:
        """`experts` and the evaluation networks of other architectures, one network a seed."""
        return self.experts() | {
            name: list(found) for name, found in self.evaluation_networks.items()
        }

    def class_images(self, per_class: int, *, std: float, seed: int) -> ClassImages:
        """Gaussian noise of the data's shape, `per_class` a class, to be optimised."""
        return ClassImages(
            classes=len(self.data.classes),
            per_class=per_class,
            shape=self.data.image_shape,
            std=std,
            seed=seed,
        )

    def real(self, per_class: int) -> Explanations:
        """The first `per_class` test images of each class (fewer where there are fewer)."""
        test = self.data.splits.test
        chosen = Explanations(test.images, test.labels).first(per_class)
        return Explanations(self.data.normalization.from_bytes(chosen.images), chosen.labels)
