"""One study from the first expert to the page: what `run.py` runs."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from cwx.buffers import import_buffer
from cwx.callbacks.pictures import LogPictures
from cwx.data.corruption import Corruption
from cwx.data.module import ImageData
from cwx.evaluations.outcome import Conditional, Evaluation, Outcome, Plan
from cwx.explanations import DivergedError
from cwx.precision import Precisions
from cwx.report.page import write_page
from cwx.results import Results
from cwx.stages import Configuration, Factory, Stages, Wanted
from cwx.subject import NetworkFactory, Subject, build_network, check_outputs, trained_network
from cwx.trajectories import Trajectory, TrajectoryStore

log = logging.getLogger(__name__)


class Study:
    """Experts, then explanations, then what is measured on them.

    Under DDP every rank walks through the same stages; rank 0 alone writes and evaluates.

    Args:
        data: the images.
        corruption: what is done to the training images before anything is trained.
        network: builds the explained kind of network.
        judges: build networks of other architectures that judge explanations, by name.
        procedure: builds the LightningModule that trains a network.
        experts: seeds of the explained and held-out experts, or folders of recorded ones.
        method: builds the methods, by name, in the order they run.
        evaluation: what is measured, by name.
        trainer: builds a Trainer.
        precision: of computing, stage by stage.
        logger: build loggers, by name.
        paper: what a paper reports, by the names of the numbers measured.
        seed: of everything but the experts.
        store: the folder that keeps experts for every study.
    """

    def __init__(
        self,
        *,
        data: ImageData,
        corruption: Corruption,
        network: NetworkFactory,
        judges: Mapping[str, NetworkFactory],
        procedure: Factory,
        experts: "Experts",
        method: Mapping[str, Factory],
        evaluation: Mapping[str, Evaluation],
        trainer: Factory,
        precision: Precisions,
        logger: Mapping[str, Factory],
        paper: Mapping[str, float],
        seed: int,
        store: str,
    ) -> None:
        self.data, self.corruption = data, corruption
        self.network, self.judges = network, judges
        self.procedure, self.experts, self.seed = procedure, experts, seed
        self.method, self.evaluation = method, evaluation
        self.trainer, self.precision, self.logger = trainer, precision, logger
        self.paper = paper
        self.store = TrajectoryStore(Path(store))

    def run(
        self,
        results: Results,
        configuration: Configuration,
        *,
        experiment: str,
        resumed: bool,
    ) -> None:
        """Run every stage that `results` lacks.

        Args:
            results: where everything but experts is left.
            configuration: the resolved settings, by which experts are known in the store.
            experiment: the name that the run goes by.
            resumed: whether `results` is expected to hold an unfinished run.
        """
        stages = Stages(self.trainer, self.precision)
        if not stages.leads:
            logging.getLogger("cwx").setLevel(logging.WARNING)
            self._run(stages, results, configuration)
            return
        log.info("this run is %s", results.folder)
        with results.running(experiment=experiment, resumed=resumed):
            stages.log_to(self.logger, results.folder, configuration)
            try:
                subject = self._run(stages, results, configuration)
                self._evaluate(stages, subject, results)
            finally:
                stages.finish_logs()
        log.info("the page is %s", write_page(results.folder))

    def _run(self, stages: Stages, results: Results, configuration: Configuration) -> Subject:
        if stages.leads:
            self.data.prepare_data()
        self.data.setup()
        self._corrupt(stages, results)
        self._check()
        if stages.leads:
            results.describe_classes(self.data.splits)
        subject = self._subject(stages, configuration)
        self._explain(stages, subject, results)
        return subject

    def _corrupt(self, stages: Stages, results: Results) -> None:
        corrupted = self.data.corrupt(self.corruption)
        touched, total = int(corrupted.touched.sum()), len(corrupted.touched)
        if touched:
            line = "%d of %d training images are corrupted, a share of %.4g"
            log.info(line, touched, total, corrupted.effective_rate)
            if stages.leads:
                results.keep_touched(corrupted.touched)

    def _check(self) -> None:
        """Refuse before anything is trained what could only fail afterwards."""
        for name, factory in {"network": self.network, **self.judges}.items():
            check_outputs(name, factory, self.data)
        plan = Plan(data=self.data, methods=list(self.method), held_out=len(self.experts.held_out))
        for evaluation in self.evaluation.values():
            if isinstance(evaluation, Conditional):
                evaluation.check(plan)

    def _subject(self, stages: Stages, configuration: Configuration) -> Subject:
        # First, for they can be missing. The store's locks let one rank import, the others find.
        recorded = [found for path in self.experts.trajectories for found in self._read(Path(path))]
        common = {
            "data": self.data.fingerprint(),
            "procedure": configuration["procedure"],
            "precision": configuration["precision"]["experts"],
        }

        def train(
            name: str, factory: NetworkFactory, network: Any, seeds: Sequence[int]
        ) -> list[Trajectory]:
            wanted = [
                Wanted(f"{name}-{seed}", seed, {**common, "network": network, "seed": seed})
                for seed in seeds
            ]
            build = self._expert(factory)
            return stages.train(build, wanted, self.store, at_once=self.experts.at_once)

        seeds = [*self.experts.seeds, *self.experts.held_out]
        experts = train("expert", self.network, configuration["network"], seeds)
        explained = experts[: len(self.experts.seeds)]
        held_out = experts[len(self.experts.seeds) :]
        judges: dict[str, list[nn.Module]] = {}
        for name, factory in self.judges.items():
            judges[name] = [
                trained_network(factory, self.data, trajectory)
                for trajectory in train(
                    name, factory, configuration["judges"][name], self.experts.judge_seeds
                )
            ]
        subject = Subject(
            data=self.data,
            factory=self.network,
            trajectories=recorded or explained,
            held_out=held_out,
            judges=judges,
        )
        network = subject.network()
        for trajectory in (*subject.trajectories, *held_out):
            trajectory.check(network)
        return subject

    def _read(self, path: Path) -> list[Trajectory]:
        if path.suffix != ".pt":
            return [Trajectory(path)]
        return import_buffer(path, build_network(self.network, self.data, seed=0), self.store)

    def _expert(self, factory: NetworkFactory) -> Callable[[Sequence[Wanted]], Any]:
        return lambda wanted: self.procedure(
            networks=[build_network(factory, self.data, seed=expert.seed) for expert in wanted],
            data=self.data,
            seeds=[expert.seed for expert in wanted],
            stages=[expert.stage for expert in wanted],
        )

    def _explain(self, stages: Stages, subject: Subject, results: Results) -> None:
        finished = results.explanations()
        for name, build in self.method.items():
            if name in finished:
                log.info("%s is there from an earlier start", name)
                continue
            module = build(subject=subject, seed=self.seed, stage=name)
            checkpoint = results.checkpoint(name)
            try:
                stages.fit(module, checkpoint, [LogPictures()])
            except DivergedError as error:
                if stages.leads:
                    results.keep_last_good(name, error.last_good)
                raise
            if stages.leads:
                results.add_explanations(name, module.explanations())
                checkpoint.unlink(missing_ok=True)
            stages.wait()

    def _evaluate(self, stages: Stages, subject: Subject, results: Results) -> None:
        found = results.explanations()
        # The file orders by name; a study orders by method.
        sources = {name: found[name] for name in self.method}
        rate = subject.data.corrupted.effective_rate
        outcomes = {"corruption": Outcome(numbers={"corruption/effective_rate": rate})}
        for name, evaluation in self.evaluation.items():
            log.info("measuring %s", name)
            outcomes[name] = evaluation(subject, sources)
        numbers = results.add_outcomes(outcomes, self.paper)
        stages.log(numbers, sorted((results.folder / "figures").glob("*.png")))


class Experts:
    """Which experts a study takes.

    Args:
        seeds: of the experts that methods may use; taken from the store or trained.
        held_out: seeds of experts for evaluation alone.
        judge_seeds: of the judges, each of which is trained once a seed.
        at_once: how many train side by side, at most; it does not change what they learn.
        trajectories: folders of recorded trajectories, or buffers (`.pt` files) to import, used
            instead of those of `seeds`.

    Raises:
        ValueError: no expert is left, or one is both used and held out.
    """

    def __init__(
        self,
        *,
        seeds: Sequence[int],
        held_out: Sequence[int],
        judge_seeds: Sequence[int],
        at_once: int,
        trajectories: Sequence[str],
    ) -> None:
        if at_once < 1:
            raise ValueError(f"experts.at_once is {at_once}: give 1 or more")
        # Recorded trajectories take the place of trained ones.
        self.seeds = [] if trajectories else list(seeds)
        self.held_out, self.at_once = list(held_out), at_once
        self.judge_seeds = list(judge_seeds)
        self.trajectories = list(trajectories)
        if not self.seeds and not self.trajectories:
            raise ValueError("a study needs an expert: give experts.seeds at least one seed")
        if both := sorted(set(self.seeds) & set(self.held_out)):
            raise ValueError(
                f"seed {both[0]} is in experts.seeds and in experts.held_out: a held-out expert "
                "is one that no method has seen"
            )
