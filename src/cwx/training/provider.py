"""Providing the trained networks of a study: read from the store, imported, or trained."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from cwx.data.datamodule import ImageData
from cwx.storage.trajectories import Trajectory, TrajectoryStore
from cwx.training.build import NetworkFactory, build_network, depends_on_ranks
from cwx.training.own_code import own_code
from cwx.training.stages import Configuration, ExpertRequest, Factory, Stages


class Training:
    """Trains the networks that are missing in the store, all with one recipe.

    Args:
        stages: fits the modules.
        network: builds the explained kind of network.
        store: holds trained networks for all studies.
        recipe: builds the LightningModule that trains networks in parallel.
        configuration: the resolved settings, which identify networks in the store.
        at_once: largest number of networks trained in parallel.
        setting: the setting that holds the recipe, for messages.
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
        setting: str = "recipe",
    ) -> None:
        self.stages, self.network = stages, network
        self.store, self.recipe = store, recipe
        self.configuration, self.at_once = configuration, at_once
        self.setting = setting

    def with_recipe(self, recipe: Factory, settings: Configuration, *, part: str) -> "Training":
        """The same with another recipe, whose resolved `settings` identify its networks.

        Args:
            part: the part of the study that holds the recipe.
        """
        return Training(
            stages=self.stages,
            network=self.network,
            store=self.store,
            recipe=recipe,
            configuration={**self.configuration, "recipe": settings},
            at_once=self.at_once,
            setting=f"{part}.recipe",
        )

    def experts(
        self, name: str, *, seeds: Sequence[int], data: ImageData, epochs: int | None = None
    ) -> list[Trajectory]:
        """Networks of the explained kind, one per seed, trained on `data`.

        Args:
            name: the common name in logs.
            epochs: the number of epochs; by default that of the recipe.
        """
        overrides = {} if epochs is None else {"epochs": epochs}
        return self._networks(
            name, self.network, self.configuration["network"], seeds, data, overrides
        )

    def evaluation_networks(
        self, name: str, factory: NetworkFactory, *, seeds: Sequence[int], data: ImageData
    ) -> list[Trajectory]:
        """Networks of another architecture, one per seed, trained on `data`.

        Args:
            name: the name of the evaluation network.
            factory: builds the networks.
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
        """Networks of the explained kind, fine-tuned on `data`, one per trajectory.

        Args:
            name: the common name in logs.
            epoch: the epoch of the trajectories to start from; ``None`` for the last of each.
            seed: of this training.

        Raises:
            ValueError: a trajectory was recorded for another network, or not at that epoch.
        """
        starts = {
            f"{name}-{index}": (trajectory, trajectory.epochs if epoch is None else epoch)
            for index, trajectory in enumerate(trajectories)
        }
        return self.continued(starts, seeds=[seed] * len(starts), data=data, role="expert")

    def continued(
        self,
        starts: Mapping[str, tuple[Trajectory, int]],
        *,
        seeds: Sequence[int],
        data: ImageData,
        role: str,
        epochs: int | None = None,
        first_epoch: int = 0,
    ) -> list[Trajectory]:
        """Networks of the explained kind, trained from recorded states.

        Args:
            starts: a trajectory and its epoch, by the name of the new network in logs.
            seeds: of this training, per network.
            role: what the trajectory is for the new network: a key of its identity in the store.
            epochs: the number of epochs; by default that of the recipe.
            first_epoch: the epoch of the learning rate schedule at which the training starts.

        Raises:
            ValueError: a trajectory was recorded for another network, or not at that epoch.
        """
        overrides = {} if epochs is None else {"epochs": epochs}
        kind = self.configuration["network"]
        common = self._common(self.network, kind, data, overrides)
        requests = [
            ExpertRequest(
                stage,
                seed,
                {**common, "seed": seed, role: trajectory.identity, "epoch": epoch},
            )
            for (stage, (trajectory, epoch)), seed in zip(starts.items(), seeds, strict=True)
        ]

        def build_start(request: ExpertRequest) -> nn.Module:
            network = build_network(self.network, data, seed=0)
            trajectory, epoch = starts[request.stage]
            trajectory.load_into(network, epoch)
            return network

        return self._train(requests, build_start, data, overrides, first_epoch=first_epoch)

    def _networks(
        self,
        name: str,
        factory: NetworkFactory,
        kind: Any,
        seeds: Sequence[int],
        data: ImageData,
        overrides: Mapping[str, Any],
    ) -> list[Trajectory]:
        common = self._common(factory, kind, data, overrides)
        requests = [
            ExpertRequest(f"{name}-{seed}", seed, {**common, "seed": seed}) for seed in seeds
        ]

        def build_start(request: ExpertRequest) -> nn.Module:
            return build_network(factory, data, seed=request.seed)

        return self._train(requests, build_start, data, overrides)

    def _common(
        self, factory: NetworkFactory, kind: Any, data: ImageData, overrides: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The common part of the identities of networks trained in parallel.

        The number of ranks is a part of it only if it changes the network, and the user's own code
        only if there is some.
        """
        ranks = self.stages.ranks
        depends = ranks > 1 and depends_on_ranks(factory, data)
        code = own_code([self.configuration["recipe"], kind])
        return {
            **({"ranks": ranks} if depends else {}),
            **({"code": code} if code else {}),
            "data": data.fingerprint(),
            "recipe": {**_identity(self.configuration["recipe"]), **overrides},
            "precision": self.configuration["precision"]["experts"],
            "network": kind,
        }

    def _train(
        self,
        requests: Sequence[ExpertRequest],
        build_start: Callable[[ExpertRequest], nn.Module],
        data: ImageData,
        overrides: Mapping[str, Any],
        *,
        first_epoch: int = 0,
    ) -> list[Trajectory]:
        """The requested networks, each trained from the network that `build_start` returns.

        Args:
            first_epoch: the epoch of the learning rate schedule at which the training starts.
        """

        def build(missing: Sequence[ExpertRequest]) -> Any:
            module = self.recipe(
                networks=[build_start(request) for request in missing],
                data=data,
                seeds=[request.seed for request in missing],
                stages=[request.stage for request in missing],
                **overrides,
            )
            module.setting = self.setting
            if first_epoch:
                module.first_epoch = first_epoch
            return module

        return self.stages.train(build, requests, self.store, at_once=self.at_once)

    def record_external(self, name: str, trajectories: Sequence[Trajectory]) -> None:
        """Record imported networks among the inputs of the run.

        Raises:
            ChangedInputError: the run was started with other networks.
        """
        if self.stages.inputs is None:
            return
        for index, trajectory in enumerate(trajectories):
            label = f"imported network {index} of {name}"
            self.stages.inputs.check_identity(label, trajectory.identity)
            self.stages.inputs.check_entry(label, trajectory.path)


def _identity(recipe: Configuration) -> dict[str, Any]:
    """The settings of a recipe that change the trained network.

    All except `recording.images`, and `compile`, which changes the rounding alone.
    """
    recording = dict(recipe.get("recording", {}))
    recording.pop("images", None)
    settings = {name: value for name, value in recipe.items() if name != "compile"}
    return {**settings, "recording": recording}


def check_recipe(recipe: Factory, networks: Mapping[str, NetworkFactory], data: ImageData) -> None:
    """Build a recipe for every kind of network, so that it can refuse them before training.

    Args:
        networks: build the kinds of networks to train, by name.

    Raises:
        ValueError: the recipe refuses a network.
    """
    for name, factory in networks.items():
        network = build_network(factory, data, seed=0)
        recipe(networks=[network], data=data, seeds=[0], stages=[name])
