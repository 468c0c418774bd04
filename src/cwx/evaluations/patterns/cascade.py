"""Patterns of networks whose weights are re-drawn layer by layer from the output.

The cascading randomisation of Adebayo et al. 2018, §3: an explanation that stays as it is does not
depend on what the network learned.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.evaluations.patterns.probe import Probe
from cwx.evaluations.patterns.selection import best_by_class, candidates_of_size, score_candidates
from cwx.evaluations.patterns.set_power import images_outside, measured, success_rate
from cwx.explanations.patterns import Patterns
from cwx.functional.mask_search import pixels
from cwx.functional.mask_similarity import overlap, rank_correlation
from cwx.functional.spread import population_std
from cwx.storage.metric_names import class_metric
from cwx.training.plan import Plan
from cwx.training.redrawn import is_redrawn, redrawn_layers, weight_layers
from cwx.training.subject import Subject

log = logging.getLogger(__name__)

_COLUMNS = {
    "iou": "overlap of the masks (IoU)",
    "correlation": "rank correlation of the masks",
    "correlation_visible": "the same where the canvas differs",
    "success": "success of the patterns",
    "no_pattern": "success without a pattern",
}
_STYLES = {
    "iou": "o-",
    "correlation": "s-",
    "correlation_visible": "s--",
    "success": "D-",
    "no_pattern": "x--",
}
# Images that tell where a canvas differs from others.
_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class _Step:
    """The patterns of one network of the cascade.

    Attributes:
        layers: the number of layers with re-drawn weights.
        method: the name of the method that searched them.
        patterns: the patterns.
    """

    layers: int
    method: str
    patterns: Patterns


class PatternCascade:
    """How masks and patterns change with the number of layers whose weights are re-drawn.

    With ``<layers>`` from 0, the intact network:

    - ``pattern_cascade/<source>/<layers>/iou``: overlap of the binary masks of this network with
      those of the intact network, the mean over classes of the mean over canvases that both
      searched. Random masks of a fraction p of the pixels have about p / (2 − p).
    - ``…/correlation``: Spearman's ρ between the pixels of the two masks averaged over the search
      (of the final masks if ties are broken at random).
    - ``…/correlation_visible``: the same among the half of the pixels where the canvas differs most
      from test images, in the mean. Elsewhere the mask changes little in any image, and the penalty
      of its size closes it whatever the network: the masks agree there for no reason of learning.
    - ``…/success``: the success rate, on test images of other classes outside D_n, of the pattern
      of lowest loss that was searched on this network, measured on this network.
    - ``…/no_pattern``: the fraction of these images that the network classifies as the class
      without a pattern.

    The last two are missing without such images.
    ``…/std`` is over classes (ddof 0), ``…/class/<class>`` the value of a class. The table is
    ``pattern_cascade``, with a row for each network and class.

    Args:
        source: the method of the intact network. All methods that explain ``redrawn`` or
            ``redrawn/<layers>`` are compared with it.
        size: of the patterns, a fraction of the image's pixels in 0-1.
        images: at most so many test images, evenly spaced; null for all.
    """

    on_all_ranks = True

    def __init__(
        self,
        *,
        source: str,
        size: Annotated[float, "> 0, <= 1"],
        images: Annotated[int, ">= 1"] | None,
    ) -> None:
        self.source, self.size, self.images = source, size, images

    def check(self, plan: Plan) -> None:
        pixels(self.size, *plan.data.image_shape[1:])
        kind = plan.explains.get(self.source, "")
        if plan.leaves.get(self.source) is not Patterns or is_redrawn(kind):
            raise ValueError(
                f"evaluation.pattern_cascade.source is {self.source!r}, which is no method of this "
                "study that searches patterns of a network as it was trained: choose "
                f"method=[…,{self.source}], or another"
            )
        if not any(
            is_redrawn(plan.explains.get(name, "")) and plan.leaves.get(name) is Patterns
            for name in plan.methods
        ):
            raise ValueError(
                "evaluation.pattern_cascade compares patterns of networks with re-drawn weights, "
                "and no method of this study searches any: add some, such as "
                "method=[iscp,iscp_cascade_1,iscp_cascade_2]"
            )

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        intact = sources[self.source]
        assert isinstance(intact, Patterns)
        steps = self._steps(subject, sources, intact)
        rows = [row for step in steps for row in self._rows(subject, intact, step)]
        return Outcome(
            metrics=self._metrics(rows),
            tables={"pattern_cascade": rows},
            figures={"pattern_cascade": _chart(rows, self.size)},
        )

    def _steps(self, subject: Subject, sources: Sources, intact: Patterns) -> list[_Step]:
        """The networks of the cascade, the intact one first."""
        all_layers = len(weight_layers(subject.first_network("expert")))
        steps = {0: _Step(layers=0, method=self.source, patterns=intact)}
        most: dict[int, int] = {}
        for name, output in sources.items():
            if isinstance(output, Patterns) and is_redrawn(output.explains):
                layers = redrawn_layers(output.explains) or all_layers
                pairs = _pairs(intact, output)
                shared = intact.labels[pairs[:, 0]].unique()
                # Random canvases agree with those of a few classes by chance.
                if 2 * len(shared) < len(intact.labels.unique()):
                    log.info("%s has other canvases than %s: left out", name, self.source)
                elif len(pairs) > most.get(layers, 0):
                    most[layers] = len(pairs)
                    steps[layers] = _Step(layers=layers, method=name, patterns=output)
        if len(steps) == 1:
            raise ValueError(
                f"no method of this study searches the canvases of {self.source} on a network with "
                "re-drawn weights: set canvas_network of such a method to "
                f"{intact.explains}, and its canvas, classes and seed to those of {self.source}"
            )
        return [steps[layers] for layers in sorted(steps)]

    def _rows(self, subject: Subject, intact: Patterns, step: _Step) -> Iterator[Row]:
        """The row of each class."""
        test, patterns = subject.data.splits.test, step.patterns
        indices = test.spread_indices(self.images)
        probe = Probe(subject, subject.first_network(patterns.explains), test.at(indices))
        searched = patterns.searched[indices]
        pairs = _pairs(intact, patterns)
        first, second = pairs.unbind(1)
        overlaps = overlap(_cut(intact, self.size)[first], _cut(patterns, self.size)[second])
        orders = _order(intact)[first], _order(patterns)[second]
        visible = _visible(intact.canvases[first], test.spread(_IMAGES).images[:])
        correlations = rank_correlation(*orders)
        of_visible = rank_correlation(*(order.gather(1, visible) for order in orders))
        candidates = candidates_of_size(step.method, patterns, self.size)
        for score in best_by_class(score_candidates(candidates, probe, searched), "lowest_loss"):
            label = score.candidate.label
            own = patterns.labels[second] == label
            if own.any():
                counted = images_outside(probe, label, searched)
                rates = [
                    success_rate(predictions, label, counted) if counted.any() else ""
                    for predictions in (score.predictions.classes, probe.clean)
                ]
                yield {
                    "layers": step.layers,
                    "source": step.method,
                    "class": subject.data.classes[label],
                    "canvases": int(own.sum()),
                    "iou": overlaps[own].mean().item(),
                    "correlation": correlations[own].mean().item(),
                    "correlation_visible": of_visible[own].mean().item(),
                    "success": rates[0],
                    "no_pattern": rates[1],
                }

    def _metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for layers, of_network in _by_layers(rows).items():
            for column in _COLUMNS:
                name = f"pattern_cascade/{self.source}/{layers}/{column}"
                if values := measured(of_network, column):
                    metrics |= {name: fmean(values), f"{name}/std": population_std(values)}
                for row in of_network:
                    if row[column] != "":
                        metrics[class_metric(name, str(row["class"]))] = float(row[column])
        return metrics


def _by_layers(rows: Sequence[Row]) -> dict[int, list[Row]]:
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(int(row["layers"]), []).append(row)
    return groups


def _pairs(a: Patterns, b: Patterns) -> Tensor:
    """Indices ``[m, 2]`` of the patterns of `a` and `b` with one class and canvas."""
    pairs = []
    for i, label in enumerate(a.labels.tolist()):
        same = (b.labels == label) & (b.canvases == a.canvases[i]).flatten(1).all(1)
        pairs += [[i, j] for j in same.nonzero()[:1, 0].tolist()]
    return torch.tensor(pairs, dtype=torch.long).view(-1, 2)


def _cut(patterns: Patterns, size: float) -> Tensor:
    return patterns.cut(size).masks


def _order(patterns: Patterns) -> Tensor:
    """What ranks the pixels: the mean mask over the search, which has few equal values."""
    return (patterns.masks if patterns.means is None else patterns.means).flatten(1)


def _visible(canvases: Tensor, images: Tensor) -> Tensor:
    """The half of the pixels where each canvas differs most from byte images, ``[n, H·W // 2]``."""
    unit = images.float() / 255
    differences = [(canvas - unit).abs().mean((0, 1)).flatten() for canvas in canvases]
    order = torch.stack(differences).argsort(dim=1, descending=True, stable=True)
    return order[:, : order.shape[1] // 2]


def _chart(rows: Sequence[Row], size: float) -> Figure:
    """The values by the number of layers with re-drawn weights, mean ± std over classes."""
    figure = Figure(figsize=(5.2, 3.4), dpi=120, layout="constrained")
    axes = figure.subplots()
    groups = _by_layers(rows)
    for column, label in _COLUMNS.items():
        by_network = {layers: measured(group, column) for layers, group in groups.items()}
        by_network = {layers: values for layers, values in by_network.items() if values}
        if by_network:
            values = by_network.values()
            means, spreads = [*map(fmean, values)], [*map(population_std, values)]
            axes.errorbar(
                [*by_network], means, yerr=spreads, fmt=_STYLES[column], capsize=2, label=label
            )
    axes.axhline(size / (2 - size), color="#999999", linestyle=":", label="IoU of random masks")
    axes.set_xticks([*groups])
    axes.set_xlabel("layers with re-drawn weights, from the output")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside upper left", ncols=2, fontsize=8)
    return figure
