"""One study from the first expert to the page: what `run.py` runs."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cwx.data.corruption import Corruption
from cwx.data.datamodule import ImageData
from cwx.evaluations.outcome import Evaluation, Outcome, Sources
from cwx.explanations.class_images import DivergedError
from cwx.storage.runs import Run
from cwx.storage.trajectories import TrajectoryStore
from cwx.study.contracts import (
    NETWORK,
    check_builds,
    check_explains,
    check_fitted,
    check_left,
    check_measured,
    check_optimizer,
)
from cwx.study.page import paged
from cwx.study.results import Results
from cwx.study.steps.adversary import Adversary, NoAdversary
from cwx.study.steps.dataset_construction import Construction
from cwx.study.steps.fine_tuning import FineTuning, NoFineTuning
from cwx.study.steps.purification import Purification
from cwx.training.build import NetworkFactory, check_outputs
from cwx.training.callbacks.log_images import LogPictures
from cwx.training.experts import Experts
from cwx.training.plan import Plan, explained_by, left_by
from cwx.training.precision import Precisions
from cwx.training.provider import Training, check_recipe, prepare_subject
from cwx.training.stages import Configuration, Factory, Fitted, Stages
from cwx.training.subject import KINDS, Subject

log = logging.getLogger(__name__)


class Study:
    """Experts, then explanations, then what is measured on them.

    Under DDP every rank walks through the same stages; rank 0 alone writes and evaluates.

    Args:
        data: the images.
        corruption: what is done to the training images before anything is trained.
        adversary: makes adversarial images to look at the networks with.
        fine-tuning: trains the experts further, to compare what it makes of them.
        dataset_construction: replaces them before the networks of the study are trained.
        purification: finds the training images that are left out when experts are trained anew.
        network: builds the explained kind of network.
        evaluation networks: build networks of other architectures that evaluation network explanations, by name.
        recipe: builds the LightningModule that trains a network.
        experts: seeds of the explained and held-out experts, or where others lie, and at which
            epoch they are explained.
        method: builds the methods, by name, in the order they run.
        evaluation: what is measured, by name.
        trainer: builds a Trainer.
        precision: of computing, stage by stage.
        logger: build loggers, by name.
        paper: what a paper reports, by the names of the numbers measured.
        seed: of everything but the experts.
        store: the folder that keeps experts for every study; not empty.
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
        seed: int,
        store: str,
    ) -> None:
        self.data, self.corruption, self.purification = data, corruption, purification
        self.dataset_construction = dataset_construction
        self.adversary, self.fine_tuning = adversary, fine_tuning
        self.network, self.evaluation_networks = network, evaluation_networks
        self.recipe, self.experts, self.seed = recipe, experts, seed
        self.method, self.evaluation = method, evaluation
        self.trainer, self.precision, self.logger = trainer, precision, logger
        self.paper = paper
        if not store:
            raise ValueError("store is empty: name a folder, or leave it out")
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
        data = str(Run.read(results.folder).choices.get("data", ""))
        self.store.used_by(results.folder, {"experiment": experiment, "data": data})
        with (
            paged(results),
            results.running(experiment=experiment, resumed=resumed),
            stages.records.kept(self.logger, results.folder, configuration),
        ):
            subject = self._run(stages, results, configuration)
            self._evaluate(stages, subject, results)

    def _run(self, stages: Stages, results: Results, configuration: Configuration) -> Subject:
        if stages.leads:
            self.data.prepare_data()
        self.data.setup()
        self.experts.check(
            images=len(self.data.splits.train),
            evaluation_networks=self.evaluation_networks,
            recipe=configuration["recipe"],
        )
        self._corrupt(stages, results)
        self._check(configuration)
        training = Training(
            stages=stages,
            network=self.network,
            store=self.store,
            recipe=self.recipe,
            configuration=configuration,
            at_once=self.experts.at_once,
        )
        metrics = self._construct(training)
        if stages.leads:
            results.describe_classes(self.data.splits)
            results.keep_samples(self.data.splits, self.data.normalization)
        subject = prepare_subject(training, self.experts, self.evaluation_networks, self.data)
        subject = replace(subject, dataset_construction=metrics)
        subject = replace(subject, adversarial=self.adversary(subject, training))
        subject = replace(subject, fine_tuned=self.fine_tuning(subject, training))
        self._explain(stages, subject, results)
        return self._purify(stages, training, subject, results)

    def _corrupt(self, stages: Stages, results: Results) -> None:
        corrupted = self.data.corrupt(self.corruption)
        is_corrupted, total = int(corrupted.is_corrupted.sum()), len(corrupted.is_corrupted)
        if is_corrupted:
            line = "%d of %d training images are corrupted, a share of %.4g"
            log.info(line, is_corrupted, total, corrupted.effective_rate)
            if stages.leads:
                results.keep_corrupted(corrupted.is_corrupted)

    def _check(self, configuration: Configuration) -> None:
        """Refuse before anything is trained what could only fail afterwards."""
        if taken := sorted(self.evaluation_networks.keys() & KINDS):
            raise ValueError(
                f"a evaluation network is called {taken[0]!r}, as a kind of experts is: give it another name "
                "(network@evaluation_networks.<name>=…)"
            )
        names = [*self.experts.kinds(), *self.experts.evaluation_networks(self.evaluation_networks)]
        fine_tuned = [] if isinstance(self.fine_tuning, NoFineTuning) else ["fine-tuned"]
        networks = {"network": self.network, **self.evaluation_networks}
        for name, factory in networks.items():
            check_builds(
                name if name == "network" else f"evaluation_networks.{name}", factory, NETWORK
            )
            check_outputs(name, factory, self.data)
        plan = Plan(
            data=self.data,
            methods=list(self.method),
            held_out=len(self.experts.held_out),
            leaves={name: left_by(build) for name, build in self.method.items()},
            epochs=self.experts.epochs(configuration["recipe"].get("epochs")),
            networks=networks,
            explains=explained_by(self.method),
            names=names,
            adversarial=not isinstance(self.adversary, NoAdversary),
            kinds=[*names, *fine_tuned],
        )
        plan.require_explained(names)
        plan.refuse(
            self.method,
            [
                self.dataset_construction,
                self.adversary,
                self.fine_tuning,
                self.purification,
                *self.evaluation.values(),
            ],
        )
        # After their own check, which knows better.
        for name, build in self.method.items():
            check_explains(name, build)
            check_optimizer(f"method.{name}", build)
        check_optimizer("recipe", self.recipe)
        trained = {name: networks[name] for name in self.experts.trained(self.evaluation_networks)}
        check_recipe(self.recipe, trained, self.data)

    def _construct(self, training: Training) -> Mapping[str, float]:
        constructed = self.dataset_construction(self.data, training)
        if constructed is None:
            return {}
        self.data.train_on(constructed.images)
        return constructed.metrics

    def _explain(self, stages: Stages, subject: Subject, results: Results) -> None:
        finished = results.explanations()
        for name, build in self.method.items():
            if name in finished:
                log.info("%s is there from an earlier start", name)
                continue
            method = build(subject=subject, seed=self.seed, stage=name)
            check_fitted(name, method)
            checkpoint = results.checkpoint(name)
            try:
                if isinstance(method, Fitted):
                    pictures = LogPictures(name, self.data.normalization)
                    stages.fit(method, checkpoint, [pictures])
            except DivergedError as error:
                if stages.leads:
                    results.keep_last_good(name, error.last_good)
                raise
            if stages.leads:
                left = method.explanations()
                check_left(name, left, self.data)
                results.add_explanations(name, left)
                checkpoint.unlink(missing_ok=True)
            stages.wait()

    def _purify(
        self,
        stages: Stages,
        training: Training,
        subject: Subject,
        results: Results,
    ) -> Subject:
        # On every rank, for a resumed run has no process group here to ask rank 0 by.
        suspicion = self.purification(subject, self._sources(results))
        if suspicion is None:
            return subject
        if suspicion.label is None:
            log.info("no training image is taken for poisoned")
        else:
            line = "%d of %d training images are taken for poisoned, all of class %r"
            count, total = int(suspicion.suspected.sum()), len(suspicion.suspected)
            log.info(line, count, total, self.data.classes[suspicion.label])
        if stages.leads:
            results.keep_suspected(suspicion.suspected)
        purified = training.experts(
            "purified",
            seeds=self.experts.purified,
            data=self.data.without(suspicion.suspected),
        )
        return replace(subject, left_out=suspicion.suspected, purified=purified)

    def _sources(self, results: Results) -> Sources:
        found = results.explanations()
        # The file orders by name; a study orders by method.
        return {name: found[name] for name in self.method}

    def _evaluate(self, stages: Stages, subject: Subject, results: Results) -> None:
        sources = self._sources(results)
        rate = subject.data.corrupted.effective_rate
        outcomes = {"corruption": Outcome(metrics={"corruption/effective_rate": rate})}
        if subject.dataset_construction:
            outcomes["dataset_construction"] = Outcome(metrics=subject.dataset_construction)
        if subject.adversarial is not None:
            outcomes["adversary"] = Outcome(metrics=subject.adversarial.metrics)
        if subject.left_out is not None:
            fraction = subject.left_out.double().mean().item()
            outcomes["purification"] = Outcome(metrics={"purification/left_out": fraction})
        for name, evaluation in self.evaluation.items():
            log.info("measuring %s", name)
            outcomes[name] = evaluation(subject, sources)
            check_measured(name, outcomes[name])
        metrics = results.add_outcomes(outcomes, self.paper)
        stages.records.add_results(results.folder, metrics)
