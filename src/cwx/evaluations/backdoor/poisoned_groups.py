"""Groups apart among the training images of each class: what poisoned images would form."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Annotated

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cwx.data.datamodule import ImageData
from cwx.evaluations.backdoor.suspects import poisoned_images
from cwx.evaluations.memory_limit import STATISTICS_BYTES
from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.explanations.text_fitting import fit_text
from cwx.functional.auroc import auroc
from cwx.functional.poison_separation import (
    MIN_IMAGES,
    PrincipalComponents,
    TwoGroups,
    activation_clusters,
    leading_variance,
    principal_components,
    spectral_scores,
)
from cwx.functional.spacing import evenly_spaced
from cwx.networks.layer_inputs import Features, layer_inputs
from cwx.storage.metric_names import class_metric
from cwx.training.build import build_network
from cwx.training.plan import Plan
from cwx.training.subject import Subject

log = logging.getLogger(__name__)

SETTING = "evaluation.poisoned_groups"
STATISTICS = ("silhouette", "smaller", "leading_variance")
DETECTORS = ("clustering", "spectral")
# Panels of the figure, and points of a panel.
_PANELS, _POINTS, _COLUMNS = 10, 500, 5
_DPI, _PANEL = 120, 1.6


@dataclass(frozen=True, kw_only=True)
class _ClassGroups:
    """The groups of one class.

    Attributes:
        label: the class.
        components: of its representations.
        groups: the clusters.
        poisoned: boolean mask of its images ``[n]``; ``None`` if the study does not know it.
    """

    label: int
    components: PrincipalComponents
    groups: TwoGroups
    poisoned: Tensor | None

    def aurocs(self) -> dict[str, float]:
        """AUROC of the scores of poisoned against clean images; empty without both."""
        if self.poisoned is None or not 0 < int(self.poisoned.sum()) < len(self.poisoned):
            return {}
        scores = self.groups.scores, spectral_scores(self.components)
        values = (auroc(score, self.poisoned) for score in scores)
        return dict(zip(DETECTORS, values, strict=True))

    def row(self, name: str, scale: float) -> Row:
        """The statistics of the class.

        Args:
            scale: the leading variance of the median class.
        """
        aurocs = self.aurocs()
        statistics: Row = {
            "class": name,
            "images": len(self.groups.smaller),
            "silhouette": self.groups.silhouette,
            "smaller": self.groups.fraction,
            "leading_variance": leading_variance(self.components) / scale if scale else "",
            "poisoned": "" if self.poisoned is None else int(self.poisoned.sum()),
        }
        return {**statistics, **{_column(name): aurocs.get(name, "") for name in DETECTORS}}


def _column(detector: str) -> str:
    return f"{detector}_auroc"


class PoisonedGroups:
    """Activation clustering and spectral signatures of the first expert, a class at a time.

    Representations are the penultimate features of a class's training images, with the labels that
    are trained on. Of each class: ``poisoned_groups/silhouette/class/<class>`` of its two clusters
    of principal components (Chen et al. 2018), ``…/smaller/…``, the fraction of its images in the
    smaller cluster, and ``…/leading_variance/…``, the variance along the top singular vector (Tran
    et al. 2018), divided by that of the median class (left out if this is 0). A high silhouette
    with a small cluster, or a high variance, is suspicious. Classes differ by nature: compare with
    clean networks.

    If the study planted a backdoor, ``poisoned_groups/clustering/auroc`` and ``…/spectral/auroc``
    tell how well the scores of images find the poisoned ones among the images of their class, as a
    mean over the classes that have both: 0.5 is chance, 1 perfect. Clustering takes the smaller
    cluster for the poisoned one, and is below 0.5 where the poisoned images are the larger one.

    The table ``poisoned_groups`` has a row per class; values of classes with fewer than 10 training
    images are empty. The figure ``poisoned_groups`` shows the classes of the highest silhouettes.

    Args:
        layer: the layer whose inputs are the representations; null for the last linear layer.
        components: the number of principal components that are clustered. (The paper: independent
            components.)
        restarts: starts of the clustering.
    """

    on_all_ranks = True

    def __init__(
        self,
        *,
        layer: str | None,
        components: Annotated[int, ">= 1"],
        restarts: Annotated[int, ">= 1"],
    ) -> None:
        self.layer, self.components, self.restarts = layer, components, restarts

    def check(self, plan: Plan) -> None:
        data = plan.data
        counts = torch.bincount(data.splits.train.labels, minlength=len(data.classes))
        if not len(data.splits.train) or int(counts.max()) < MIN_IMAGES:
            raise ValueError(
                f"{SETTING} needs {MIN_IMAGES} training images of a class, and the data have "
                f"{int(counts.max())} at most: choose data with training images, or leave "
                "poisoned_groups out of evaluation=[…]"
            )
        if (factory := plan.networks.get("network")) is None:
            return
        network = build_network(factory, data, seed=0).eval()
        with layer_inputs(network, self.layer, f"{SETTING}.layer") as features, torch.no_grad():
            size = features(torch.zeros(1, *data.image_shape)).shape[1]
        count = int(counts.max())
        # Representations, centred ones and their coordinates; a Gram matrix and its decomposition.
        needed = 8 * (3 * count * size + 3 * min(count, size) ** 2)
        if needed > STATISTICS_BYTES:
            raise ValueError(
                f"{SETTING} would take {needed / 2**30:.0f} GiB of memory for {count} images of "
                f"{size} features: set {SETTING}.layer to a layer with fewer inputs, or lower "
                "data.per_class"
            )

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        names = subject.data.classes
        by_class = {groups.label: groups for groups in self._groups(subject)}
        if left_out := [name for label, name in enumerate(names) if label not in by_class]:
            line = "%s leaves out %d of %d classes, with fewer than %d training images: %s"
            log.warning(
                line, SETTING, len(left_out), len(names), MIN_IMAGES, ", ".join(left_out[:5])
            )
        counts = torch.bincount(subject.data.splits.train.labels, minlength=len(names)).tolist()
        variances = [leading_variance(groups.components) for groups in by_class.values()]
        scale = median(variances)
        rows = [
            by_class[label].row(name, scale)
            if label in by_class
            else _empty_row(name, counts[label])
            for label, name in enumerate(names)
        ]
        return Outcome(
            metrics=_metrics(rows),
            tables={"poisoned_groups": rows},
            figures={"poisoned_groups": _figure(list(by_class.values()), names)},
        )

    def _groups(self, subject: Subject) -> list[_ClassGroups]:
        """The groups of each class with enough images; the ranks divide the classes."""
        data, train = subject.data, subject.data.splits.train
        counts = torch.bincount(train.labels, minlength=len(data.classes))
        poisoned = poisoned_images(data)
        network = subject.first_network("expert")
        with layer_inputs(network, self.layer, f"{SETTING}.layer") as features:

            def of_class(label: int) -> _ClassGroups:
                mask = train.labels == label
                representations = _representations(features, data, mask, subject.device)
                components = principal_components(representations, self.components)
                coordinates = components.coordinates
                return _ClassGroups(
                    label=label,
                    components=components,
                    groups=activation_clusters(coordinates, restarts=self.restarts, seed=0),
                    poisoned=None if poisoned is None else poisoned[mask],
                )

            labels = (counts >= MIN_IMAGES).nonzero()[:, 0].tolist()
            return subject.ranks.map(of_class, labels)


@torch.no_grad()
def _representations(
    features: Features, data: ImageData, mask: Tensor, device: torch.device
) -> Tensor:
    batches = data.in_order(data.splits.train.at(mask))
    return torch.cat([features(batch.images.to(device)).float().cpu() for batch in batches])


def _empty_row(name: str, images: int) -> Row:
    values = (*STATISTICS, "poisoned", *map(_column, DETECTORS))
    return {"class": name, "images": images, **dict.fromkeys(values, "")}


def _metrics(rows: Sequence[Row]) -> dict[str, float]:
    metrics = {
        class_metric(f"poisoned_groups/{statistic}", str(row["class"])): float(row[statistic])
        for row in rows
        for statistic in STATISTICS
        if row[statistic] != ""
    }
    for detector in DETECTORS:
        values = [float(row[_column(detector)]) for row in rows if row[_column(detector)] != ""]
        if values:
            metrics[f"poisoned_groups/{detector}/auroc"] = fmean(values)
    return metrics


def _figure(classes: Sequence[_ClassGroups], names: Sequence[str]) -> Figure:
    """The first two components of the classes of the highest silhouettes, in falling order."""
    shown = sorted(classes, key=lambda groups: -groups.groups.silhouette)[:_PANELS]
    rows, columns = math.ceil(len(shown) / _COLUMNS), min(len(shown), _COLUMNS)
    size = columns * _PANEL, rows * (_PANEL + 0.35) + 0.3
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for groups, panel in zip(shown, axes, strict=False):
        _panel(panel, groups, names[groups.label])
    for panel in axes[len(shown) :]:
        panel.set_axis_off()
    return figure


def _panel(axes: Axes, groups: _ClassGroups, name: str) -> None:
    indices = evenly_spaced(len(groups.groups.smaller), _POINTS)
    points = groups.components.coordinates[indices, :2]
    x, y = points[:, 0], points[:, 1] if points.shape[1] > 1 else torch.zeros(len(points))
    colours = ["C1" if small else "C0" for small in groups.groups.smaller[indices].tolist()]
    axes.scatter(x.numpy(), y.numpy(), s=4, c=colours, linewidths=0)
    if groups.poisoned is not None:
        mask = groups.poisoned[indices]
        axes.scatter(
            x[mask].numpy(), y[mask].numpy(), s=14, facecolors="none", edgecolors="black",
            linewidths=0.5,
        )  # fmt: skip
    title = fit_text(name, round(_PANEL * _DPI) - 20, _DPI, max_lines=1, sizes=(8, 7))
    numbers = f"silhouette {groups.groups.silhouette:.2f}, {groups.groups.fraction:.0%}"
    axes.set_title(f"{title.lines}\n{numbers}", fontsize=7, parse_math=False)
    axes.set(xticks=[], yticks=[])
