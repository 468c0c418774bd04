"""One study, from training experts to writing the report: `run.py` runs it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cwx.data.corruption import Corruption
from cwx.data.datamodule import ImageData
from cwx.evaluations.outcome import Evaluation, Sources
from cwx.report.corruption_line import corruption_line
from cwx.storage.runs import Run
from cwx.storage.trajectories import TrajectoryStore
from cwx.study.corruption_row import corruption_row
from cwx.study.inputs import check_files, check_images
from cwx.study.page import end_with_lost_rank, fail_in_thread, page_on_exit
from cwx.study.results import Results
from cwx.study.steps.adversary import Adversary, NoAdversary
from cwx.study.steps.bank import measure_bank
from cwx.study.steps.cure import CureStep, NoCure
from cwx.study.steps.dataset_construction import Construction, NoConstruction
from cwx.study.steps.evaluation import evaluate, evaluate_on_all_ranks
from cwx.study.steps.explanation import explain
from cwx.study.steps.fine_tuning import FineTuning, NoFineTuning
from cwx.study.steps.purification import Purification
from cwx.study.steps.recovered_trigger import suspected_class
from cwx.study.steps.replicas import replicas_for
from cwx.study.validation import check_study
from cwx.training.build import NetworkFactory
from cwx.training.experts import Experts
from cwx.training.importing.load import import_networks
from cwx.training.plan import Plan, uses_trajectories
from cwx.training.precision import Precisions
from cwx.training.preparation import prepare_subject
from cwx.training.provider import Training
from cwx.training.rank_failures import ended_together, raised_on_all_ranks
from cwx.training.stages import Configuration, Factory, Stages
from cwx.training.subject import Subject

log = logging.getLogger(__name__)


class Study:
    """Trains experts, computes explanations, and evaluates them.

    Under DDP every rank runs the same stages, and only rank 0 writes files. The ranks divide the
    work of the evaluations that support it; rank 0 makes the others.

    Args:
        data: the images.
        corruption: corrupts the training images before any training.
        dataset_construction: replaces the training images before the networks of the study are
            trained.
        adversary: makes adversarial images, on which evaluations compare the networks.
        fine_tuning: trains the experts further; evaluations compare the networks before and after.
        cure: removes the recovered trigger of a class.
        purification: finds training images to remove; experts are trained again without them.
        network: builds the explained kind of network.
        evaluation_networks: build networks of other architectures, by name; evaluations test the
            explanations on them.
        recipe: builds the LightningModule that trains networks.
        experts: seeds of the explained and held-out experts, or paths of trained ones, and the
            epoch at which they are explained.
        method: builds the methods, by name, in the order they run.
        evaluation: the evaluations, by name.
        trainer: builds a Trainer.
        precision: the numerical precision of each stage.
        logger: build loggers, by name.
        paper: values that a paper reports, by the names of the metrics.
        notes: lines for the log and for the top of the page.
        seed: of all random numbers except those of the experts.
        store: path of the folder that holds experts for all studies; not empty.

    Raises:
        ValueError: `store` is empty.
    """

    def __init__(
        self,
        *,
        data: ImageData,
        corruption: Corruption,
        dataset_construction: Construction,
        adversary: Adversary,
        fine_tuning: FineTuning,
        purification: Purification,
        cure: CureStep,
        network: NetworkFactory,
        evaluation_networks: Mapping[str, NetworkFactory],
        recipe: Factory,
        experts: Experts,
        method: Mapping[str, Factory],
        evaluation: Mapping[str, Evaluation],
        trainer: Factory,
        precision: Precisions,
        logger: Mapping[str, Factory],
        paper: Mapping[str, float],
        notes: Sequence[str],
        seed: Annotated[int, ">= 0, < 2**63"],
        store: str,
    ) -> None:
        self.data, self.corruption, self.purification = data, corruption, purification
        self.dataset_construction = dataset_construction
        self.adversary, self.fine_tuning, self.cure = adversary, fine_tuning, cure
        self.network, self.evaluation_networks = network, evaluation_networks
        self.recipe, self.seed = recipe, seed
        self.experts = experts if uses_trajectories(method) else experts.without_early()
        self.method, self.evaluation = method, evaluation
        self.trainer, self.precision, self.logger = trainer, precision, logger
        self.paper, self.notes = paper, notes
        if not store:
            raise ValueError("store is empty: set store to the path of a folder, or omit it")
        self.store = TrajectoryStore(Path(store))

    def run(
        self, results: Results, configuration: Configuration, *, experiment: str, resumed: bool
    ) -> None:
        """Run every stage whose results are missing.

        Args:
            results: the run directory, for all results except experts.
            configuration: the resolved settings, which identify experts in the store.
            experiment: the name of the experiment, recorded in the status.
            resumed: whether `results` may already hold an unfinished run.
        """
        minutes = self.experts.checkpoint_minutes
        stages = Stages(self.trainer, self.precision, checkpoint_minutes=minutes)
        with ended_together(partial(fail_in_thread, results, stages.logger_group)):
            if stages.is_rank_zero:
                self._run_on_rank_zero(stages, results, configuration, experiment, resumed)
                return
            logging.getLogger("cwx").setLevel(logging.WARNING)
            subject = self._run(stages, results, configuration)
            # Rank 0 logs what an evaluation warns about.
            logging.getLogger("cwx").setLevel(logging.ERROR)
            evaluate_on_all_ranks(self.evaluation, subject, self._sources(results))

    def _run_on_rank_zero(
        self,
        stages: Stages,
        results: Results,
        configuration: Configuration,
        experiment: str,
        resumed: bool,
    ) -> None:
        for line in (f"run directory: {results.folder}", *self.notes):
            log.info("%s", line)
        stages.on_lost_rank = partial(end_with_lost_rank, results, stages.logger_group)
        data = str(Run.read(results.folder).choices.get("data", ""))
        self.store.set_user(results.folder, {"experiment": experiment, "data": data})
        with (
            page_on_exit(results),
            results.running(experiment=experiment, resumed=resumed),
            stages.logger_group.run(self.logger, results.folder, configuration),
            raised_on_all_ranks(),  # Before the page is written.
        ):
            subject = self._run(stages, results, configuration)
            self._evaluate(stages, subject, results)

    def _run(self, stages: Stages, results: Results, configuration: Configuration) -> Subject:
        if stages.is_rank_zero:
            stages.inputs = results.inputs
            check_files(results.inputs, configuration)
            self.data.prepare_data()
        self.data.setup()
        if stages.is_rank_zero:
            check_images(results.inputs, self.data, configuration)
        self.experts.check(
            images=len(self.data.splits.train),
            evaluation_networks=self.evaluation_networks,
            recipe=configuration["recipe"],
        )
        self._corrupt(stages, results)
        plan = self._check(configuration)
        training = Training(
            stages=stages,
            network=self.network,
            store=self.store,
            recipe=self.recipe,
            configuration=configuration,
            at_once=self.experts.at_once,
        )
        # Before any training: an import may fail.
        imported = import_networks(
            self.experts,
            self.network,
            self.evaluation_networks,
            self.data,
            self.store,
            stages.device,
        )
        if imported.recorded_epochs:
            replace(plan, trajectories=imported.recorded_epochs).refuse(self.method, self._parts())
        metrics = self._construct(training)
        if stages.is_rank_zero:
            results.describe_classes(self.data.splits)
            results.save_samples(self.data.splits, self.data.normalization)
        subject = prepare_subject(
            training, self.experts, self.evaluation_networks, self.data, imported
        )
        subject = replace(subject, dataset_construction=metrics)
        replicas = replicas_for(self.evaluation.values(), subject, training)
        subject = replace(subject, replicas=replicas)
        # Before the adversary, which may attack the fine-tuned networks.
        subject = replace(subject, fine_tuned=self.fine_tuning(subject, training))
        subject = replace(subject, adversarial=self.adversary(subject, training))
        explain(self.method, stages, subject, results, seed=self.seed)
        subject = measure_bank(
            subject,
            self.evaluation,
            # No loggers: the curves of the bank's networks are not of interest.
            stages=Stages(self.trainer, self.precision),
            method=self.method,
            store=self.store,
            configuration=configuration,
            seed=self.seed,
        )
        sources = self._sources(results)
        suspected = suspected_class(self.evaluation, subject, sources)
        cure = self.cure(subject, sources, training, suspected)
        subject = replace(subject, cure=cure)
        if cure is not None and stages.is_rank_zero:
            results.save_cured(cure.cured)
        return self._purify(stages, training, subject, results)

    def _corrupt(self, stages: Stages, results: Results) -> None:
        if not self.data.corrupt(self.corruption).is_corrupted.any():
            return
        row = corruption_row(self.data)
        log.info("corruption: %s", corruption_line(row))
        if stages.is_rank_zero:
            results.inputs.check("the corrupted images", self.data.fingerprint())
            results.save_corrupted(self.data.corrupted, row)

    def _parts(self) -> list[Any]:
        """The parts that may refuse a plan, beside the methods."""
        steps = [self.dataset_construction, self.adversary, self.fine_tuning, self.purification]
        return [*steps, self.cure, *self.evaluation.values()]

    def _check(self, configuration: Configuration) -> Plan:
        return check_study(
            data=self.data,
            network=self.network,
            evaluation_networks=self.evaluation_networks,
            experts=self.experts,
            recipe=self.recipe,
            recipe_settings=configuration["recipe"],
            method=self.method,
            parts=self._parts(),
            makes_adversarial=not isinstance(self.adversary, NoAdversary),
            fine_tunes=not isinstance(self.fine_tuning, NoFineTuning),
            constructs=not isinstance(self.dataset_construction, NoConstruction),
            cures=not isinstance(self.cure, NoCure),
        )

    def _construct(self, training: Training) -> Mapping[str, float]:
        constructed = self.dataset_construction(self.data, training)
        if constructed is None:
            return {}
        self.data.train_on(constructed.images)
        if training.stages.inputs is not None:
            training.stages.inputs.check("the constructed images", self.data.fingerprint())
        return constructed.metrics

    def _purify(
        self, stages: Stages, training: Training, subject: Subject, results: Results
    ) -> Subject:
        # Computed on every rank: in a resumed run there may be no process group to broadcast with.
        suspicion = self.purification(subject, self._sources(results))
        if suspicion is None:
            return subject
        if suspicion.label is None:
            log.info("no training image is suspected to be poisoned")
        else:
            line = "%d of %d training images are suspected to be poisoned, all of class %r"
            count, total = int(suspicion.suspected.sum()), len(suspicion.suspected)
            log.info(line, count, total, self.data.classes[suspicion.label])
        if stages.is_rank_zero:
            results.save_suspected(suspicion.suspected)
        purified = training.experts(
            "purified",
            seeds=self.experts.purified,
            data=self.data.without(suspicion.suspected),
        )
        return replace(subject, left_out=suspicion.suspected, purified=purified)

    def _sources(self, results: Results) -> Sources:
        explanations = results.explanations()
        # The file is sorted by name; the order of the methods is needed.
        return {name: explanations[name] for name in self.method}

    def _evaluate(self, stages: Stages, subject: Subject, results: Results) -> None:
        sources = self._sources(results)
        subject = replace(subject, method_seconds=results.method_seconds())
        outcomes = evaluate(self.evaluation, subject, sources)
        metrics = results.add_outcomes(outcomes, self.paper)
        stages.logger_group.add_results(results.folder, metrics)
