"""The subject of a study: images, a kind of network, and trained networks of this kind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cwx.data.adversarial_set import AdversarialSet
from cwx.data.datamodule import ImageData
from cwx.explanations.class_images import ClassImages
from cwx.explanations.images import Explanations
from cwx.storage.trajectories import Trajectory
from cwx.training.bank import Bank
from cwx.training.build import NetworkFactory, build_network, copy_network, trained_network
from cwx.training.cure import Cure
from cwx.training.ranks import Ranks
from cwx.training.redrawn import is_redrawn, redraw_weights, redrawn_layers

# The kinds of trained networks of the explained architecture, by their role in a study.
EXPERT = "expert"
KINDS = frozenset({EXPERT, "fine-tuned", "held-out", "clean", "purified"})
# Images on which the running statistics of a network with re-drawn weights are measured.
_STATISTICS = 256


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The images and networks of a study, passed to every method and evaluation.

    Trained networks that it returns are on `device` and belong to the caller, who may move them or
    change their memory format: every call returns others, copies of the evaluation networks.

    Attributes:
        data: the images, loaded.
        factory: builds the explained kind of network for the data.
        trajectories: the experts that methods may use, by seed.
        held_out: experts of other seeds, for evaluation only.
        early_held_out: more of them, whose training stopped early; they are not evaluated
            themselves.
        replicas: by the name of a held-out expert's folder and the epoch k, the network trained
            again from its θ_k with other batches.
        evaluation_networks: fully trained networks of other architectures, frozen, by name, one
            per seed.
        evaluation_trajectories: the trajectories of the evaluation networks, by the same names, in
            the same order.
        early: more experts that methods may use, whose training stopped early; not evaluated.
        clean: experts trained on the images before corruption.
        bank: clean networks that the first expert is compared with.
        fine_tuned: the experts of `trajectories`, each fine-tuned with another recipe.
        adversarial: adversarial images for networks of the study; ``None`` if there are none.
        dataset_construction: metrics of the dataset construction; empty if there was none.
        left_out: boolean mask ``[n]`` of the training images that purification removed; ``None``
            without purification.
        purified: experts trained without these images.
        cure: the networks after the removal of a trigger; ``None`` without.
        method_seconds: the time that each method took, by name; known to evaluations alone.
        epoch: the epoch at which the networks of these trajectories are used, except fine-tuned
            and evaluation networks; ``None`` for the last.
        continued_epochs: the epochs of `early` and `early_held_out`, if they continue the training
            of `trajectories`, which have a single state; else ``None``.
        device: the device for explanation and evaluation.
        ranks: those that divide the work of an evaluation (`cwx.evaluations.outcome.OnAllRanks`).
    """

    data: ImageData
    factory: NetworkFactory
    trajectories: Sequence[Trajectory]
    held_out: Sequence[Trajectory]
    evaluation_networks: Mapping[str, Sequence[nn.Module]]
    evaluation_trajectories: Mapping[str, Sequence[Trajectory]] = field(default_factory=dict)
    early: Sequence[Trajectory] = ()
    early_held_out: Sequence[Trajectory] = ()
    replicas: Mapping[tuple[str, int], Trajectory] = field(default_factory=dict)
    clean: Sequence[Trajectory] = ()
    bank: Bank = field(default_factory=Bank)
    fine_tuned: Sequence[Trajectory] = ()
    adversarial: AdversarialSet | None = None
    dataset_construction: Mapping[str, float] = field(default_factory=dict)
    left_out: Tensor | None = None
    purified: Sequence[Trajectory] = ()
    cure: Cure | None = None
    method_seconds: Mapping[str, float] = field(default_factory=dict)
    epoch: int | None = None
    continued_epochs: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    ranks: Ranks = field(default_factory=Ranks)

    @property
    def fitted(self) -> Sequence[Trajectory]:
        """All trajectories that methods may use."""
        return self.early if self.continued_epochs else (*self.trajectories, *self.early)

    def network(self, seed: int = 0) -> nn.Module:
        """A network of the explained kind with random weights."""
        return build_network(self.factory, self.data, seed=seed)

    def trained_network(self, trajectory: Trajectory, epoch: int | None = None) -> nn.Module:
        """The network of `trajectory` after `epoch` (default: the study's epoch), frozen, in eval
        mode.

        Raises:
            ValueError: the trajectory was recorded for another network, or not at that epoch.
        """
        chosen = self.epoch if epoch is None else epoch
        return trained_network(self.factory, self.data, trajectory, chosen).to(self.device)

    def bank_network(self, trajectory: Trajectory) -> nn.Module:
        """A network of the bank, at the study's epoch if it was recorded, else at its last."""
        epoch = self.epoch_in(trajectory)
        return trained_network(self.factory, self.data, trajectory, epoch).to(self.device)

    def epoch_in(self, trajectory: Trajectory) -> int | None:
        """The study's epoch; ``None``, the last, for a trajectory without it."""
        return self.epoch if self.epoch in trajectory.recorded_epochs else None

    def experts(self) -> dict[str, list[nn.Module]]:
        """The trained networks of the explained kind, by their role in the study.

        ``expert``: the experts that methods use; ``fine-tuned``: the same after fine-tuning;
        ``held-out``: experts that no method uses; ``clean``: trained on uncorrupted images;
        ``purified``: trained after purification. Roles without networks are omitted.
        """
        return {
            kind: [self._network_of(kind, t) for t in trajectories]
            for kind, trajectories in self._trajectories_by_kind().items()
        }

    def _network_of(self, kind: str, trajectory: Trajectory) -> nn.Module:
        return self.trained_network(trajectory, self._epoch(kind, trajectory))

    def _epoch(self, kind: str, trajectory: Trajectory) -> int:
        # Fine-tuning starts at the study's epoch; its networks are used at their last epoch.
        chosen = None if kind == "fine-tuned" else self.epoch
        return trajectory.epochs if chosen is None else chosen

    def _trajectories_by_kind(self) -> dict[str, Sequence[Trajectory]]:
        kinds = {
            EXPERT: self.trajectories,
            "fine-tuned": self.fine_tuned,
            "held-out": self.held_out,
            "clean": self.clean,
            "purified": self.purified,
        }
        return {kind: trajectories for kind, trajectories in kinds.items() if trajectories}

    @property
    def names(self) -> list[str]:
        """The names of `panel`."""
        return [*self._trajectories_by_kind(), *self.evaluation_networks]

    def first_network(self, kind: str) -> nn.Module:
        """The first expert of a kind, or the first evaluation network of a name.

        ``redrawn`` is the first expert with re-drawn weights, ``redrawn/<layers>`` that with the
        weights of so many layers re-drawn, from the output downwards.

        Raises:
            ValueError: the study has no such network.
        """
        kinds = self._trajectories_by_kind()
        if kind in kinds:
            return self._network_of(kind, kinds[kind][0])
        if kind in self.evaluation_networks:
            return self._copy(self.evaluation_networks[kind][0])
        if is_redrawn(kind):
            return self._redrawn(redrawn_layers(kind))
        raise ValueError(
            f"this study has no network called {kind!r} to explain: choose one of "
            f"{', '.join(self.names)}"
        )

    def _redrawn(self, layers: int | None) -> nn.Module:
        network = self.first_network(EXPERT)
        images = self.data.splits.test.spread(_STATISTICS).images[:]
        normalised = self.data.normalization.from_bytes(images.to(self.device))
        redraw_weights(network, normalised, seed=0, layers=layers)
        return network

    def state_of(self, name: str) -> tuple[Trajectory, int]:
        """The trajectory and the epoch of `first_network`."""
        trajectory = {**self.evaluation_trajectories, **self._trajectories_by_kind()}[name][0]
        if name in self.evaluation_trajectories:
            return trajectory, trajectory.epochs
        return trajectory, self._epoch(name, trajectory)

    def panel(self) -> dict[str, list[nn.Module]]:
        """`experts` and the evaluation networks, one network per seed, by name."""
        return self.experts() | {
            name: [self._copy(network) for network in networks]
            for name, networks in self.evaluation_networks.items()
        }

    def _copy(self, network: nn.Module) -> nn.Module:
        return copy_network(network).to(self.device)

    def class_images(self, per_class: int, *, std: float, seed: int) -> ClassImages:
        """Images to optimise, `per_class` per class, initialised with Gaussian noise of `std`."""
        return ClassImages(
            classes=len(self.data.classes),
            per_class=per_class,
            shape=self.data.image_shape,
            std=std,
            seed=seed,
        )

    def real_images(self, per_class: int) -> Explanations:
        """The first `per_class` test images of each class, or all if there are fewer."""
        test = self.data.splits.test.first(per_class)
        images = self.data.normalization.from_bytes(test.images[:])
        # Ordered by class.
        return Explanations(images, test.labels).first(per_class)
