"""What a study explains: images, a kind of network, and trained examples of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from cwx.data.module import ImageData
from cwx.explanations import ClassImages, Explanations
from cwx.networks.modes import freeze
from cwx.trajectories import Trajectory

NetworkFactory = Callable[..., nn.Module]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The object of a study, given to every method and evaluation.

    Attributes:
        data: the images, loaded.
        factory: builds the explained kind of network for the data.
        trajectories: the experts that methods may use, by seed.
        held_out: experts of other seeds, for evaluation alone.
        judges: networks of other architectures, trained, frozen, by name.
    """

    data: ImageData
    factory: NetworkFactory
    trajectories: Sequence[Trajectory]
    held_out: Sequence[Trajectory]
    judges: Mapping[str, nn.Module]

    def network(self) -> nn.Module:
        """A fresh network of the explained kind, its weights of no meaning."""
        return build_network(self.factory, self.data, seed=0)

    def trained(self, trajectory: Trajectory, epoch: int | None = None) -> nn.Module:
        """The network of `trajectory` after `epoch` (by default its last), frozen in eval mode.

        Raises:
            ValueError: the trajectory was recorded for another network.
        """
        network = self.network()
        trajectory.load_into(network, trajectory.epochs if epoch is None else epoch)
        return freeze(network)

    def experts(self) -> dict[str, nn.Module]:
        """The explained expert (``expert``) and those no method saw (``held-out-0`` …), trained."""
        held_out = {f"held-out-{i}": self.trained(t) for i, t in enumerate(self.held_out)}
        return {"expert": self.trained(self.trajectories[0]), **held_out}

    def class_images(self, per_class: int, seed: int) -> ClassImages:
        """Noise of the data's shape, `per_class` a class, to be optimised."""
        return ClassImages(
            classes=len(self.data.classes),
            per_class=per_class,
            shape=self.data.image_shape,
            seed=seed,
        )

    def real(self, per_class: int) -> Explanations:
        """The first `per_class` test images of each class (fewer where there are fewer)."""
        test = self.data.splits.test
        chosen = Explanations(test.images, test.labels).first(per_class)
        return Explanations(self.data.normalization.from_bytes(chosen.images), chosen.labels)


def build_network(factory: NetworkFactory, data: ImageData, *, seed: int) -> nn.Module:
    """A network for `data` whose initial weights are a function of `seed`."""
    channels, *size = data.image_shape
    # Layers draw from the global stream: borrow it and give it back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory(in_channels=channels, image_size=tuple(size), num_classes=len(data.classes))
