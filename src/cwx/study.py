"""One study from the first expert to the page: what `run.py` runs."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cwx.callbacks.checkpoints import AtomicCheckpointIO, every_epoch, fit
from cwx.callbacks.pictures import LogPictures
from cwx.callbacks.progress import progress
from cwx.callbacks.recording import RecordStates
from cwx.data.module import ImageData
from cwx.evaluations.outcome import Evaluation
from cwx.explanations import DivergedError
from cwx.networks.modes import freeze
from cwx.report.page import write_page
from cwx.results import Results
from cwx.subject import NetworkFactory, Subject, build_network
from cwx.trajectories import Identity, Recorder, Trajectory, TrajectoryStore

log = logging.getLogger(__name__)

Factory = Callable[..., Any]
Configuration = Mapping[str, Any]


class Study:
    """Experts, then explanations, then what is measured on them.

    Under DDP every rank walks through the same stages; rank 0 alone writes and evaluates.

    Args:
        data: the images.
        network: builds the explained kind of network.
        judges: build networks of other architectures that judge explanations, by name.
        procedure: builds the LightningModule that trains a network.
        experts: seeds of the explained and held-out experts, or folders of recorded ones.
        method: builds the methods, by name, in the order they run.
        evaluation: what is measured, by name.
        trainer: builds a Trainer.
        logger: build loggers, by name.
        seed: of everything but the experts.
        store: the folder that keeps experts for every study.
    """

    def __init__(
        self,
        *,
        data: ImageData,
        network: NetworkFactory,
        judges: Mapping[str, NetworkFactory],
        procedure: Factory,
        experts: "Experts",
        method: Mapping[str, Factory],
        evaluation: Mapping[str, Evaluation],
        trainer: Factory,
        logger: Mapping[str, Factory],
        seed: int,
        store: str,
    ) -> None:
        self.data, self.network, self.judges = data, network, judges
        self.procedure, self.experts, self.seed = procedure, experts, seed
        self.method, self.evaluation = method, evaluation
        self.trainer, self.logger = trainer, logger
        self.store = TrajectoryStore(Path(store))

    def run(
        self, results: Results, configuration: Configuration, *, experiment: str, resumed: bool
    ) -> None:
        """Run every stage that `results` lacks.

        Args:
            results: where everything but experts is left.
            configuration: the resolved settings, by which experts are known in the store.
            experiment: the name that the run goes by.
            resumed: whether `results` is expected to hold an unfinished run.
        """
        stages = Stages(self.trainer)
        if not stages.leads:
            self._run(stages, results, configuration)
            return
        with results.running(experiment=experiment, resumed=resumed):
            stages.log_to(self.logger, results.folder, configuration)
            try:
                subject = self._run(stages, results, configuration)
                self._evaluate(stages, subject, results)
            finally:
                stages.finish_logs()
        write_page(results.folder)

    def _run(self, stages: "Stages", results: Results, configuration: Configuration) -> Subject:
        if stages.leads:
            self.data.prepare_data()
        self.data.setup()
        subject = self._subject(stages, configuration)
        self._explain(stages, subject, results)
        return subject

    def _subject(self, stages: "Stages", configuration: Configuration) -> Subject:
        procedure = configuration["procedure"]
        data = self.data.fingerprint()

        def train(name: str, factory: NetworkFactory, network: Any, seed: int) -> Trajectory:
            identity = {"data": data, "network": network, "procedure": procedure, "seed": seed}
            module = self._expert(f"{name}-{seed}", factory, seed)
            return stages.train(module, identity, self.store)

        explained, held_out = (
            [train("expert", self.network, configuration["network"], seed) for seed in seeds]
            for seeds in (self.experts.seeds, self.experts.held_out)
        )
        recorded = [Trajectory(Path(path)) for path in self.experts.trajectories]
        judges: dict[str, nn.Module] = {}
        for name, factory in self.judges.items():
            trajectory = train(name, factory, configuration["judges"][name], self.experts.judge_seed)
            judges[name] = build_network(factory, self.data, seed=0)
            trajectory.load_into(judges[name], trajectory.epochs)
            freeze(judges[name])
        subject = Subject(
            data=self.data,
            factory=self.network,
            trajectories=recorded or explained,
            held_out=held_out,
            judges=judges,
        )
        for trajectory in (*subject.trajectories, *held_out):
            trajectory.load_into(subject.network(), 0)
        return subject

    def _expert(self, stage: str, factory: NetworkFactory, seed: int) -> Callable[[], Any]:
        return lambda: self.procedure(
            network=build_network(factory, self.data, seed=seed),
            data=self.data,
            seed=seed,
            stage=stage,
        )

    def _explain(self, stages: "Stages", subject: Subject, results: Results) -> None:
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
                results.keep_last_good(name, error.last_good)
                raise
            if stages.leads:
                results.add_explanations(name, module.explanations())
                checkpoint.unlink(missing_ok=True)
            stages.wait()

    def _evaluate(self, stages: "Stages", subject: Subject, results: Results) -> None:
        sources = results.explanations()
        outcomes = {}
        for name, evaluation in self.evaluation.items():
            log.info("measuring %s", name)
            outcomes[name] = evaluation(subject, sources)
        numbers = results.add_outcomes(outcomes)
        stages.log(numbers, sorted((results.folder / "figures").glob("*.png")))


class Experts:
    """Which experts a study takes.

    Args:
        seeds: of the experts that methods may use; taken from the store or trained.
        held_out: seeds of experts for evaluation alone.
        judge_seed: seed of the judges.
        trajectories: folders of recorded trajectories to use instead of those of `seeds`.

    Raises:
        ValueError: no expert is left, or one is both used and held out.
    """

    def __init__(
        self,
        *,
        seeds: Sequence[int],
        held_out: Sequence[int],
        judge_seed: int,
        trajectories: Sequence[str],
    ) -> None:
        # Recorded trajectories take the place of trained ones.
        self.seeds = [] if trajectories else list(seeds)
        self.held_out, self.judge_seed = list(held_out), judge_seed
        self.trajectories = list(trajectories)
        if not self.seeds and not self.trajectories:
            raise ValueError("a study needs an expert: give experts.seeds at least one seed")
        if both := sorted(set(self.seeds) & set(self.held_out)):
            raise ValueError(
                f"seed {both[0]} is in experts.seeds and in experts.held_out: a held-out expert "
                "is one that no method has seen"
            )


class Stages:
    """Fits one module after another, the same way on every rank."""

    def __init__(self, trainer: Factory) -> None:
        self._trainer = trainer
        self._loggers: list[Any] = []
        self._last = self._build(epochs=1, steps=-1, callbacks=[])

    def _build(self, *, epochs: int, steps: int, callbacks: Sequence[Any]) -> Any:
        return self._trainer(
            max_epochs=epochs,
            max_steps=steps,
            callbacks=[progress(), *callbacks],
            plugins=[AtomicCheckpointIO()],
            logger=list(self._loggers),
        )

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self._last.is_global_zero)

    def fit(self, module: Any, checkpoint: Path, callbacks: Sequence[Any]) -> None:
        """Fit `module` to its end, from `checkpoint` if there is one."""
        self._last = self._build(
            epochs=module.epochs,
            steps=module.steps,
            callbacks=[*callbacks, every_epoch(checkpoint)],
        )
        fit(self._last, module, checkpoint)

    def wait(self) -> None:
        """Wait until every rank is here."""
        self._last.strategy.barrier()

    def train(
        self, build: Callable[[], Any], identity: Identity, store: TrajectoryStore
    ) -> Trajectory:
        """The expert of that identity, trained first if the store lacks it."""
        if not self.leads:
            return self._train_unless_there(build, identity, store)
        waiting = f"another job trains {store.path(identity).name}: waiting for it"
        with store.lock(identity, waiting):
            return self._train_unless_there(build, identity, store)

    def _train_unless_there(
        self, build: Callable[[], Any], identity: Identity, store: TrajectoryStore
    ) -> Trajectory:
        # Rank 0 decides: under its lock the answer cannot change any more.
        found: Trajectory | None = self._last.strategy.broadcast(store.find(identity))
        if found is not None:
            return found
        module = build()
        path = store.path(identity)
        checkpoint = path / "checkpoint.ckpt"
        log.info("%s is not in the store: training it", module.stage)
        self.fit(module, checkpoint, [RecordStates(Recorder(path, identity))])
        if self.leads:
            checkpoint.unlink(missing_ok=True)
        self.wait()
        return Trajectory(path)

    def log_to(
        self, factories: Mapping[str, Factory], folder: Path, configuration: Configuration
    ) -> None:
        """Start the loggers; one that fails costs its record, not the study."""
        for name, build in factories.items():
            try:
                logger = build(save_dir=str(folder))
                logger.log_hyperparams(configuration)
            except Exception as error:
                log.warning("%s does not start, and this run goes without it: %s", name, error)
            else:
                self._loggers.append(logger)

    def log(self, numbers: Mapping[str, float], figures: Sequence[Path]) -> None:
        """Send what was measured to every logger."""
        for logger in self._loggers:
            logger.log_metrics(numbers)
            if hasattr(logger, "log_image"):
                for figure in figures:
                    logger.log_image(key=f"figures/{figure.stem}", images=[str(figure)])
            logger.save()

    def finish_logs(self) -> None:
        """Close every logger, so that the next run in this process starts its own."""
        for logger in self._loggers:
            if hasattr(logger.experiment, "finish"):
                logger.experiment.finish()
