"""The trained networks of a study: found in the store, imported, or trained."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from cwx.data.datamodule import ImageData
from cwx.storage.trajectories import Trajectory, TrajectoryStore
from cwx.training.build import NetworkFactory, build_network, trained_network
from cwx.training.experts import Experts
from cwx.training.importing.load import load_evaluation_networks, recorded
from cwx.training.stages import Configuration, Factory, Stages, Wanted
from cwx.training.subject import Subject


class Training:
    """Trains the networks that the store lacks, all by one recipe.

    Args:
        stages: fit one module after another.
        network: builds the explained kind of network.
        store: keeps trained networks for every study.
        recipe: builds the LightningModule that trains networks side by side.
        configuration: the resolved settings, by which networks are known in the store.
        at_once: how many train side by side, at most.
    """

    def __init__(
        self,
        *,
        stages: Stages,
        network: NetworkFactory,
        store: TrajectoryStore,
        recipe: Factory,
        configuration: Configuration,
        at_once: int,
    ) -> None:
        self.stages, self.network = stages, network
        self.store, self.recipe = store, recipe
        self.configuration, self.at_once = configuration, at_once

    def by(self, recipe: Factory, settings: Configuration) -> "Training":
        """The same by another recipe, whose resolved `settings` name its networks."""
        return Training(
            stages=self.stages,
            network=self.network,
            store=self.store,
            recipe=recipe,
            configuration={**self.configuration, "recipe": settings},
            at_once=self.at_once,
        )

    def experts(
        self, name: str, *, seeds: Sequence[int], data: ImageData, epochs: int | None = None
    ) -> list[Trajectory]:
        """Networks of the explained kind, one a seed, trained on `data`.

        Args:
            name: of them all, in logs.
            epochs: how far to train; by default as the recipe says.
        """
        changed = {} if epochs is None else {"epochs": epochs}
        return self._networks(
            name, self.network, self.configuration["network"], seeds, data, changed
        )

    def evaluation_networks(
        self, name: str, factory: NetworkFactory, *, seeds: Sequence[int], data: ImageData
    ) -> list[Trajectory]:
        """Networks of another architecture, one a seed, trained on `data`.

        Args:
            name: theirs among the evaluation networks.
            factory: builds them.
        """
        kind = self.configuration["evaluation_networks"][name]
        return self._networks(name, factory, kind, seeds, data, {})

    def fine_tuned(
        self,
        name: str,
        trajectories: Sequence[Trajectory],
        *,
        epoch: int | None,
        seed: int,
        data: ImageData,
    ) -> list[Trajectory]:
        """Networks of the explained kind, trained further on `data`, one for each trajectory.

        Args:
            name: of them all, in logs.
            epoch: of the trajectories, from which they go on; ``None`` for the last of each.
            seed: of this training.

        Raises:
            ValueError: a trajectory was recorded for another network, or not at that epoch.
        """
        kind = self.configuration["network"]
        common = {**self._common(kind, data, {}), "seed": seed}
        starts = {
            f"{name}-{place}": (found, found.epochs if epoch is None else epoch)
            for place, found in enumerate(trajectories)
        }
        wanted = [
            Wanted(stage, seed, {**common, "expert": found.identity, "epoch": at})
            for stage, (found, at) in starts.items()
        ]

        def begin(one: Wanted) -> nn.Module:
            network = build_network(self.network, data, seed=0)
            found, at = starts[one.stage]
            found.load_into(network, at)
            return network

        return self._train(wanted, begin, data, {})

    def _networks(
        self,
        name: str,
        factory: NetworkFactory,
        kind: Any,
        seeds: Sequence[int],
        data: ImageData,
        changed: Mapping[str, Any],
    ) -> list[Trajectory]:
        common = self._common(kind, data, changed)
        wanted = [Wanted(f"{name}-{seed}", seed, {**common, "seed": seed}) for seed in seeds]
        return self._train(
            wanted, lambda one: build_network(factory, data, seed=one.seed), data, changed
        )

    def _common(self, kind: Any, data: ImageData, changed: Mapping[str, Any]) -> dict[str, Any]:
        """What the identities of networks trained together have in common."""
        return {
            "data": data.fingerprint(),
            "recipe": {**_identity(self.configuration["recipe"]), **changed},
            "precision": self.configuration["precision"]["experts"],
            "network": kind,
        }

    def _train(
        self,
        wanted: Sequence[Wanted],
        begin: Callable[[Wanted], nn.Module],
        data: ImageData,
        changed: Mapping[str, Any],
    ) -> list[Trajectory]:
        """Those wanted, each trained from where it begins."""

        def build(missing: Sequence[Wanted]) -> Any:
            return self.recipe(
                networks=[begin(one) for one in missing],
                data=data,
                seeds=[one.seed for one in missing],
                stages=[one.stage for one in missing],
                **changed,
            )

        return self.stages.train(build, wanted, self.store, at_once=self.at_once)

    def elsewhere(self, experts: Experts, data: ImageData) -> list[Trajectory]:
        """Experts trained elsewhere, read from the store or imported into it.

        Raises:
            ValueError: one is missing, damaged or of another network, or was not recorded at the
                epoch that is to be shown.
        """
        network = build_network(self.network, data, seed=0)
        found = recorded(experts.trajectories, experts.checkpoints, network, self.store)
        for trajectory in found:
            if experts.epoch is not None:
                trajectory.require(experts.epoch)
        return found


def prepare_subject(
    training: Training,
    experts: Experts,
    evaluation_networks: Mapping[str, NetworkFactory],
    data: ImageData,
) -> Subject:
    """The networks that a study takes, in its subject; what is not to be had is trained first.

    Args:
        evaluation networks: build networks of other architectures, by name.

    Raises:
        ValueError: one from elsewhere is missing, damaged or of another network.
    """
    # First, for they can be missing.
    elsewhere = training.elsewhere(experts, data)
    imported = load_evaluation_networks(
        experts.evaluation_checkpoints, evaluation_networks, data, training.store
    )
    trained = training.experts("expert", seeds=[*experts.seeds, *experts.held_out], data=data)
    early = training.experts(
        "early", seeds=experts.early.seeds, data=data, epochs=experts.early.epochs
    )
    clean = training.experts("clean", seeds=experts.clean, data=data.uncorrupted())
    evaluation_trajectories = {
        name: imported.get(name)
        or training.evaluation_networks(
            name, evaluation_networks[name], seeds=experts.evaluation_seeds, data=data
        )
        for name in experts.evaluation_networks(evaluation_networks)
    }
    subject = Subject(
        data=data,
        factory=training.network,
        trajectories=elsewhere or trained[: len(experts.seeds)],
        early=early,
        held_out=trained[len(experts.seeds) :],
        evaluation_networks={
            name: [trained_network(evaluation_networks[name], data, t) for t in found]
            for name, found in evaluation_trajectories.items()
        },
        evaluation_trajectories=evaluation_trajectories,
        clean=clean,
        device=training.stages.device,
        epoch=experts.epoch,
    )
    network = subject.network()
    for trajectory in (*subject.fitted, *subject.held_out):
        trajectory.check(network)
    return subject


def _identity(recipe: Configuration) -> dict[str, Any]:
    """What of a recipe makes a network what it is: not where its accuracy is measured."""
    recording = dict(recipe.get("recording", {}))
    recording.pop("images", None)
    return {**recipe, "recording": recording}


def check_recipe(recipe: Factory, networks: Mapping[str, NetworkFactory], data: ImageData) -> None:
    """Let a recipe refuse the networks that it is to train, by name, before any is trained.

    Raises:
        ValueError: it does.
    """
    for name, factory in networks.items():
        network = build_network(factory, data, seed=0)
        recipe(networks=[network], data=data, seeds=[0], stages=[name])
