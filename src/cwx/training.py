"""The trained networks of a study: found in the store, imported, or trained."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from cwx.buffers import import_buffer
from cwx.data.module import ImageData
from cwx.stages import Configuration, Factory, Stages, Wanted
from cwx.subject import NetworkFactory, build_network, trained_network
from cwx.trajectories import Trajectory, TrajectoryStore


@dataclass(frozen=True, kw_only=True)
class Early:
    """Experts whose training stops early.

    Attributes:
        seeds: of their weights and their training.
        epochs: how far they train, as far as methods look at least.
    """

    seeds: Sequence[int]
    epochs: int


class Experts:
    """Which networks a study takes.

    Args:
        seeds: of the experts that methods may use; taken from the store or trained.
        early: more experts that methods may use, trained no further than these look: they cost
            less and are never judged.
        held_out: seeds of experts for evaluation alone.
        purified: seeds of those trained anew once a purification has filtered the images.
        judge_seeds: of the judges, each of which is trained once a seed.
        at_once: how many train side by side, at most; it does not change what they learn.
        trajectories: folders of recorded trajectories, or buffers (`.pt` files) to import, used
            instead of those of `seeds` and `early`.

    Raises:
        ValueError: no expert is left, or a seed is given twice.
    """

    def __init__(
        self,
        *,
        seeds: Sequence[int],
        early: Early,
        held_out: Sequence[int],
        purified: Sequence[int],
        judge_seeds: Sequence[int],
        at_once: int,
        trajectories: Sequence[str],
    ) -> None:
        if at_once < 1:
            raise ValueError(f"experts.at_once is {at_once}: give 1 or more")
        # Recorded trajectories take the place of trained ones.
        self.seeds = [] if trajectories else list(seeds)
        self.early = replace(early, seeds=[]) if trajectories else early
        self.held_out, self.purified = list(held_out), list(purified)
        self.judge_seeds, self.at_once = list(judge_seeds), at_once
        self.trajectories = list(trajectories)
        if not self.seeds and not self.trajectories:
            raise ValueError("a study needs an expert: give experts.seeds at least one seed")
        # A held-out expert is one that no method has seen.
        together = [*self.seeds, *self.early.seeds, *self.held_out]
        for names, given in (
            ("seeds, experts.early.seeds and experts.held_out", together),
            ("purified", self.purified),
            ("judge_seeds", self.judge_seeds),
        ):
            if twice := [seed for seed, count in Counter(given).items() if count > 1]:
                raise ValueError(
                    f"seed {twice[0]} is given twice in experts.{names}: give each once"
                )
        if self.early.seeds and self.early.epochs < 1:
            raise ValueError(
                f"experts.early.epochs is {self.early.epochs}: give 1 or more, or no "
                "experts.early.seeds"
            )

    def epochs(self, whole: int | None) -> dict[str, int]:
        """How far the experts that methods use are trained, by the setting that says so.

        Args:
            whole: of the procedure; ``None`` if it does not say.
        """
        found = {"procedure.epochs": whole} if self.seeds and whole is not None else {}
        return found | ({"experts.early.epochs": self.early.epochs} if self.early.seeds else {})


class Training:
    """Trains the networks that the store lacks, all by one procedure.

    Args:
        stages: fit one module after another.
        network: builds the explained kind of network.
        store: keeps trained networks for every study.
        procedure: builds the LightningModule that trains networks side by side.
        configuration: the resolved settings, by which networks are known in the store.
        at_once: how many train side by side, at most.
    """

    def __init__(
        self,
        *,
        stages: Stages,
        network: NetworkFactory,
        store: TrajectoryStore,
        procedure: Factory,
        configuration: Configuration,
        at_once: int,
    ) -> None:
        self.stages, self.network = stages, network
        self.store, self.procedure = store, procedure
        self.configuration, self.at_once = configuration, at_once

    def by(self, procedure: Factory, settings: Configuration) -> "Training":
        """The same by another procedure, whose resolved `settings` name its networks."""
        return Training(
            stages=self.stages,
            network=self.network,
            store=self.store,
            procedure=procedure,
            configuration={**self.configuration, "procedure": settings},
            at_once=self.at_once,
        )

    def experts(
        self, name: str, *, seeds: Sequence[int], data: ImageData, epochs: int | None = None
    ) -> list[Trajectory]:
        """Networks of the explained kind, one a seed, trained on `data`.

        Args:
            name: of them all, in logs.
            epochs: how far to train; by default as the procedure says.
        """
        changed = {} if epochs is None else {"epochs": epochs}
        return self._networks(
            name, self.network, self.configuration["network"], seeds, data, changed
        )

    def judges(
        self, name: str, factory: NetworkFactory, *, seeds: Sequence[int], data: ImageData
    ) -> list[nn.Module]:
        """Networks of another architecture, one a seed, trained on `data` and frozen.

        Args:
            name: theirs among the judges.
            factory: builds them.
        """
        kind = self.configuration["judges"][name]
        found = self._networks(name, factory, kind, seeds, data, {})
        return [trained_network(factory, data, trajectory) for trajectory in found]

    def _networks(
        self,
        name: str,
        factory: NetworkFactory,
        kind: Any,
        seeds: Sequence[int],
        data: ImageData,
        changed: Mapping[str, Any],
    ) -> list[Trajectory]:
        common = {
            "data": data.fingerprint(),
            "procedure": {**_identity(self.configuration["procedure"]), **changed},
            "precision": self.configuration["precision"]["experts"],
            "network": kind,
        }
        wanted = [Wanted(f"{name}-{seed}", seed, {**common, "seed": seed}) for seed in seeds]

        def build(missing: Sequence[Wanted]) -> Any:
            return self.procedure(
                networks=[build_network(factory, data, seed=one.seed) for one in missing],
                data=data,
                seeds=[one.seed for one in missing],
                stages=[one.stage for one in missing],
                **changed,
            )

        return self.stages.train(build, wanted, self.store, at_once=self.at_once)

    def recorded(self, paths: Sequence[str], data: ImageData) -> list[Trajectory]:
        """Experts trained elsewhere: folders of the store, or buffers, which are imported."""
        # The store's locks let one rank import, the others find.
        return [found for path in paths for found in self._read(Path(path), data)]

    def _read(self, path: Path, data: ImageData) -> list[Trajectory]:
        if path.suffix != ".pt":
            return [Trajectory(path)]
        return import_buffer(path, build_network(self.network, data, seed=0), self.store)


def _identity(procedure: Configuration) -> dict[str, Any]:
    """What of a procedure makes a network what it is: not where its accuracy is measured."""
    recording = dict(procedure.get("recording", {}))
    recording.pop("images", None)
    return {**procedure, "recording": recording}
