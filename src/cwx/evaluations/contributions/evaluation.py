"""Signed contributions of units to logits, and how far the evidence contradicts a prediction."""

import logging
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from cwx.data.splits import Splits
from cwx.data.taxonomy import Taxonomy, correlation_of_classes
from cwx.evaluations.adversarial.adversarial_detection import check_memory
from cwx.evaluations.adversarial.features import LayerChoice, check_networks, select_networks
from cwx.evaluations.contributions.figures import contradiction_figure, curves_figure
from cwx.evaluations.contributions.images import (
    EvaluatedImages,
    evaluated_images,
    evaluated_indices,
)
from cwx.evaluations.contributions.measurement import Measurement, Measures
from cwx.evaluations.contributions.reference import (
    ReferenceUnits,
    reference_indices,
    reference_units,
)
from cwx.evaluations.contributions.scores import (
    Score,
    auc_rows,
    evidence_scores,
    gaussian_score,
)
from cwx.evaluations.contributions.tables import (
    area_rows,
    contribution_rows,
    curve_rows,
    flip_rows,
    metrics_of,
)
from cwx.evaluations.neurons.top_images import Activation
from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.functional.class_gaussians import Covariance
from cwx.functional.representation_distance import Pooling
from cwx.training.plan import Plan
from cwx.training.subject import Subject

log = logging.getLogger(__name__)

SETTING = "evaluation.contributions"
TABLES = ("contributions", "contributions_flips", "contributions_areas", "contributions_curves")


class Contributions:
    """What units of a layer contribute to logits, alone and in groups, on many images.

    The contribution of a unit to a logit is the logit with the unit minus the logit without it. A
    unit is removed at all positions: set to 0 (``zero``), to its mean at each position over
    reference images (``mean``), or to its maps of other reference images (``resample``). The images
    are evenly spaced test images and one adversarial image of each. Reference images are all other
    test images, so that no image is compared with itself.

    ``contributions/<network>/<images>/<ablation>/<logit>`` is the mean over images of the sum of
    the contributions of all units to the ``predicted``, ``true`` or ``target`` logit.
    ``…/<images>/flip/<order>`` is the median number of units until the prediction flips, removed in
    an order: ``greedy``; by ``contribution`` to the margin of the prediction, by ``difference``
    (PD, Eq 12), by ``activation``, and as control in ``random`` order. It is left out if half of
    the predictions do not flip. ``…/<images>/deletion/<order>`` and ``…/insertion/<order>`` are
    areas under the probability of the predicted class against the fraction of units removed, or of
    units kept.

    ``contributions/<network>/auc/<score>`` is the AUC of a score on adversarial against test
    images: ``contradiction`` (`cwx.functional.contradiction`) and its control ``permuted``, the
    ``gaussian`` of `cwx.evaluations.adversarial.adversarial_detection`, and ``confidence``, 1 − the
    highest probability. Without adversarial images there is none, and without training images of
    every class no ``gaussian``. The networks are the first of each name.

    Args:
        networks, layer, before_nonlinearity: as in `cwx.evaluations.traces.evaluation`.
        images: number of test images.
        ablation: that of flips, curves, metrics of scores and figures.
        draws: number of other images of resample ablation, over which logits are averaged.
        limit: at most so many units are removed greedily.
        activation: from units ``[n, units, …]`` to activations ``[n, units]``.
        fraction: top images of a unit as a fraction of the reference images, in (0, 1].
        taxonomy: gives distances between classes.
        sigma: σ of the correlation C of classes (Eq 2).
        pooling, covariance: of the Gaussians.

    Raises:
        ValueError: a setting is out of its range.
    """

    on_all_ranks = True

    def __init__(
        self,
        *,
        networks: Sequence[str] | None,
        layer: str | None,
        before_nonlinearity: bool,
        images: Annotated[int, ">= 1"],
        ablation: Literal["zero", "mean", "resample"],
        draws: Annotated[int, ">= 1, <= 128"],
        limit: Annotated[int, ">= 1"],
        activation: Activation,
        fraction: Annotated[float, "> 0, <= 1"],
        taxonomy: Taxonomy,
        sigma: Annotated[float, ">= 0.001, <= 1000"],
        pooling: Pooling,
        covariance: Covariance,
    ) -> None:
        for name, value in (("images", images), ("draws", draws), ("limit", limit)):
            if value < 1:
                raise ValueError(f"{SETTING}.{name} is {value}: give 1 or more")
        if not 0 < fraction <= 1:
            raise ValueError(f"{SETTING}.fraction is {fraction}: give a fraction above 0, up to 1")
        self.networks = networks
        self.layer = LayerChoice(
            layer=layer, before_nonlinearity=before_nonlinearity, setting=SETTING
        )
        self.images, self.ablation = images, ablation
        self.draws, self.limit = draws, limit
        self.activation, self.fraction = activation, fraction
        self.taxonomy, self.sigma = taxonomy, sigma
        self.pooling, self.covariance = pooling, covariance

    def check(self, plan: Plan) -> None:
        classes, count = len(plan.data.classes), len(plan.data.splits.test)
        if classes < 2:
            raise ValueError(
                f"{SETTING} compares the logits of classes, and there is one: choose data of two "
                "classes or more, or leave contributions out of evaluation=[…]"
            )
        check_networks(plan, self.networks, self.layer)
        reference_indices(plan.data, torch.arange(min(self.images, count)), f"{SETTING}.images")
        if plan.adversarial and len(plan.data.splits.train):
            check_memory(plan, self.networks, self.layer, self.pooling, self.covariance)
        self._correlation(plan.data.splits)

    def _correlation(self, splits: Splits) -> Tensor:
        return correlation_of_classes(self.taxonomy, splits, self.sigma, SETTING)

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        indices = evaluated_indices(subject, self.images)
        images = evaluated_images(subject, indices)
        references = reference_indices(subject.data, indices, f"{SETTING}.images")
        tables: dict[str, list[Row]] = {name: [] for name in (*TABLES, "contributions_auc")}
        metrics: dict[str, float] = {}
        scores: dict[str, list[Score]] = {}
        for name, networks in select_networks(subject, self.networks, SETTING).items():
            log.info("removing units of %s", name)
            measures, reference = self._measure(subject, networks[0], images, references)
            own = self._rows(name, measures, len(reference.fractions))
            if len(images) > 1:
                own_scores = self._scores(subject, networks[0], images, measures, reference)
                labels = {of_kind.kind: of_kind.labels for of_kind in images}
                own["contributions_auc"] = auc_rows(name, own_scores, measures, labels)
                scores[name] = [s for s in own_scores if s.ablation in ("", self.ablation)]
            metrics |= metrics_of(f"contributions/{name}", own, self.ablation)
            for table, rows in own.items():
                tables[table] += rows
        return Outcome(
            metrics=metrics,
            tables={name: rows for name, rows in tables.items() if rows},
            figures=self._figures(tables, scores),
        )

    def _measure(
        self,
        subject: Subject,
        network: nn.Module,
        images: Sequence[EvaluatedImages],
        references: Tensor,
    ) -> tuple[dict[str, Measures], ReferenceUnits]:
        """The measures by kind of images, and the reference units."""
        data, ranks = subject.data, subject.ranks
        later = self.layer.later_layers(network, data.image_shape)
        reference = reference_units(
            later.read,
            data,
            references,
            activation=self.activation,
            fraction=self.fraction,
            device=subject.device,
            ranks=ranks,
        )
        measurement = Measurement(
            later=later,
            reference=reference,
            ablation=self.ablation,
            draws=self.draws,
            limit=self.limit,
            activation=self.activation,
            correlation=self._correlation(data.splits),
            device=subject.device,
            chunk=data.batch_size,
        )
        return {kind.kind: measurement(kind, data, ranks) for kind in images}, reference

    def _rows(self, name: str, measures: dict[str, Measures], units: int) -> dict[str, list[Row]]:
        """The rows of a network by table; that of AUC is empty."""
        own: dict[str, list[Row]] = {table: [] for table in (*TABLES, "contributions_auc")}
        for kind, of_kind in measures.items():
            own["contributions"] += contribution_rows(name, kind, of_kind)
            own["contributions_flips"] += flip_rows(name, kind, of_kind, units, self.limit)
            own["contributions_areas"] += area_rows(name, kind, of_kind)
            own["contributions_curves"] += curve_rows(name, kind, of_kind)
        return own

    def _scores(
        self,
        subject: Subject,
        network: nn.Module,
        images: Sequence[EvaluatedImages],
        measures: dict[str, Measures],
        reference: ReferenceUnits,
    ) -> list[Score]:
        similarity = reference.fractions @ self._correlation(subject.data.splits)
        scores = evidence_scores(measures, similarity)

        own = gaussian_score(
            network,
            subject.data,
            images,
            self.layer,
            self.pooling,
            self.covariance,
            subject.ranks,
        )
        return [*scores, own] if own else scores

    def _figures(
        self, tables: dict[str, list[Row]], scores: dict[str, list[Score]]
    ) -> dict[str, Figure]:
        figures = {"contributions_curves": curves_figure(tables["contributions_curves"])}
        if scores:
            rows = [r for r in tables["contributions_auc"] if r["ablation"] in ("", self.ablation)]
            figures["contributions_contradiction"] = contradiction_figure(scores, rows)
        return figures
