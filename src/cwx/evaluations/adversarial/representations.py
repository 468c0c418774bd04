"""Distance of adversarial representations to their class and target (Dong et al., §2.3)."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from cwx.data.adversarial_set import AdversarialSet
from cwx.evaluations.adversarial.features import (
    ExtractFeatures,
    LayerChoice,
    adversarial_batches,
    feature_counts,
    feature_extractor,
    select_networks,
)
from cwx.evaluations.memory_limit import STATISTICS_BYTES
from cwx.evaluations.outcome import Outcome, Row, Sources, mean_over_networks
from cwx.functional.representation_distance import Pooling, RealRepresentations
from cwx.functional.spacing import evenly_spaced
from cwx.training.plan import Plan
from cwx.training.subject import Subject

log = logging.getLogger(__name__)

SETTING = "evaluation.representations"
RATIOS = ("r1", "r2")
# Bins of the histograms.
BINS = 60
# Classes whose features a rank sends at once.
_CLASSES = 16


class Representations:
    """r1 and r2 of all adversarial images, by network (Eq 6, 7; Figures 5, 9).

    r1 is the mean distance from φ(x*) to real images of the original's class, divided by the mean
    distance between these: 1 if the attack does not move φ. r2 is the mean distance from φ(x*) to
    real images of the target class, divided by their mean distance to those of the original's
    class: below 1 if the attack moves φ towards the target. Real images are test images.

    ``representations/<network>/r1`` and ``…/r2`` are means over adversarial images and over the
    networks of one name. Images whose class or target has fewer than two real images, or whose
    class has a single representation, have no ratio: ``…/left_out`` counts them. The table
    ``representations`` adds standard deviations over networks, ``representations_networks`` has a
    row per network; ``representations_histogram`` and the figure ``representations`` have the
    fraction of adversarial images by ratio.

    Args:
        networks: kinds of networks or names of evaluation networks; null for ``expert`` and
            ``fine-tuned``, as far as the study has them.
        layer: name of the layer of φ; null for the layer that the classifier takes.
        before_nonlinearity: read φ after the normalisation of the layer, before additions and
            non-linearities.
        pooling: from the layer's maps to vectors.
        per_class: at most so many real images of each class, evenly spaced; null for all. Their φ
            are held in memory.

    Raises:
        ValueError: `per_class` is below 2.
    """

    on_all_ranks = True

    def __init__(
        self,
        *,
        networks: Sequence[str] | None,
        layer: str | None,
        before_nonlinearity: bool,
        pooling: Pooling,
        per_class: Annotated[int, ">= 2"] | None,
    ) -> None:
        if per_class is not None and per_class < 2:
            raise ValueError(
                f"{SETTING}.per_class is {per_class}, and a distance is between two images: give "
                "2 or more, or null for all"
            )
        self.networks = networks
        self.layer = LayerChoice(
            layer=layer, before_nonlinearity=before_nonlinearity, setting=SETTING
        )
        self.pooling, self.per_class = pooling, per_class

    def check(self, plan: Plan) -> None:
        plan.require_adversarial("representations")
        labels = plan.data.splits.test.labels
        by_class = _indices_by_class(labels, labels.unique(), self.per_class)
        count = sum(map(len, by_class.values()))
        for features in feature_counts(plan, self.networks, self.layer, self.pooling):
            if (needed := 4 * count * features) > STATISTICS_BYTES:
                raise ValueError(
                    f"{SETTING} would hold {features} features of each of {count} real "
                    f"images, {needed / 2**30:.0f} GiB: set {SETTING}.per_class to fewer images, "
                    f"or choose pooling@{SETTING}.pooling=mean"
                )

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        assert subject.adversarial is not None
        real = RealImages.of(subject.data.splits.test.labels, subject.adversarial, self.per_class)
        ratios = {
            name: [self._ratios(network, subject, real) for network in networks]
            for name, networks in select_networks(subject, self.networks, SETTING).items()
        }
        rows: list[Row] = [
            {"network": name, "replicate": replicate, **_means(of_network)}
            for name, of_networks in ratios.items()
            for replicate, of_network in enumerate(of_networks)
        ]
        means = mean_over_networks(rows, values=(*RATIOS, "left_out"))
        histogram = _histogram({name: torch.cat(parts, 1) for name, parts in ratios.items()})
        return Outcome(
            metrics={
                f"representations/{row['network']}/{name}": float(row[name])
                for row in means
                for name in (*RATIOS, "left_out")
            },
            tables={"representations": means, "representations_networks": rows}
            | ({"representations_histogram": histogram} if histogram else {}),
            figures={"representations": _figure(histogram)},
        )

    def _ratios(self, network: nn.Module, subject: Subject, real: "RealImages") -> Tensor:
        """r1 and r2 of each adversarial image, ``[2, n]``; NaN for images without a ratio."""
        adversarial, data = subject.adversarial, subject.data
        assert adversarial is not None
        ratios = torch.full((2, len(adversarial)), torch.nan, dtype=torch.float64)
        if not real.has_ratios.any():
            return ratios
        with feature_extractor(network, data, self.layer, self.pooling) as extract:
            representations = RealRepresentations(_real_features(extract, subject, real))

            def of_own_batches() -> list[tuple[Tensor, Tensor]]:
                return [*_batch_ratios(extract, subject, representations, real)]

            for own in subject.ranks.collect(of_own_batches):
                for indices, of_batch in own:
                    ratios[:, indices] = of_batch
        return torch.where(ratios.isfinite(), ratios, torch.nan)


@dataclass(frozen=True, kw_only=True)
class RealImages:
    """The real images to which adversarial images are compared.

    Attributes:
        has_ratios: boolean mask ``[n]``, the adversarial images that have ratios.
        by_class: indices of the real images of each class among the test images.
        original_ranks: ``[n]``, the index of each original among the real images of its class; -1
            if it is not among them.
    """

    has_ratios: Tensor
    by_class: Mapping[int, Tensor]
    original_ranks: Tensor

    @classmethod
    def of(cls, test: Tensor, adversarial: AdversarialSet, per_class: int | None) -> "RealImages":
        """Selects real images of the adversarial images' classes; warns if some have no ratios.

        Args:
            test: labels of the test images ``[t]``.
            adversarial: the adversarial images.
            per_class: see `Representations`.
        """
        labels, targets = adversarial.labels, adversarial.targets
        classes = torch.cat([labels, targets]).unique()
        by_class = {
            label: indices
            for label, indices in _indices_by_class(test, classes, per_class).items()
            if len(indices) > 1
        }
        available = torch.tensor([*by_class], dtype=torch.long)
        has_ratios = torch.isin(labels, available) & torch.isin(targets, available)
        if not has_ratios.all():
            log.warning(
                "%d of %d adversarial images are left out of representations: their class or "
                "target class has fewer than two test images",
                int((~has_ratios).sum()),
                len(has_ratios),
            )
        ranks = torch.full_like(labels, -1)
        for label, indices in by_class.items():
            rows = labels == label
            originals = adversarial.originals[rows]
            nearest = torch.searchsorted(indices, originals).clamp(max=len(indices) - 1)
            ranks[rows] = torch.where(indices[nearest] == originals, nearest, -1)
        return cls(has_ratios=has_ratios, by_class=by_class, original_ranks=ranks)


def _indices_by_class(labels: Tensor, classes: Tensor, per_class: int | None) -> dict[int, Tensor]:
    """By class, ascending indices of its images; at most `per_class` of them, evenly spaced."""
    by_class = {label: (labels == label).nonzero()[:, 0] for label in classes.tolist()}
    if per_class is None:
        return by_class
    return {
        label: indices[evenly_spaced(len(indices), per_class)]
        for label, indices in by_class.items()
    }


def _real_features(
    extract: ExtractFeatures, subject: Subject, real: RealImages
) -> dict[int, Tensor]:
    """φ of the real images of each class, on every rank; each class is read on one."""
    data, ranks, labels = subject.data, subject.ranks, [*real.by_class]

    def features(label: int) -> Tensor:
        batches = data.in_order(data.splits.test.at(real.by_class[label]))
        return torch.cat([extract(batch.images)[0].cpu() for batch in batches])

    by_class: dict[int, Tensor] = {}
    # Not all classes at once: what ranks send each other is in memory several times.
    for start in range(0, len(labels), _CLASSES * ranks.count):
        part = labels[start : start + _CLASSES * ranks.count]
        by_class |= zip(part, ranks.map(features, part), strict=True)
    return by_class


def _batch_ratios(
    extract: ExtractFeatures,
    subject: Subject,
    representations: RealRepresentations,
    real: RealImages,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices ``[m]`` of adversarial images, and their r1 and r2 ``[2, m]``, of this rank."""
    adversarial, ranks = subject.adversarial, subject.ranks
    assert adversarial is not None
    batches = adversarial_batches(subject.data, adversarial, first=ranks.index, step=ranks.count)
    for rows, images in batches:
        if (mask := real.has_ratios[rows]).any():
            indices = torch.arange(rows.start, rows.stop)[mask]
            labels, targets = adversarial.labels[indices], adversarial.targets[indices]
            features, originals = extract(images[mask])[0], real.original_ranks[indices]
            yield indices, torch.stack(representations.ratios(features, labels, targets, originals))


def _means(ratios: Tensor) -> Row:
    valid = ~ratios.isnan().any(0)
    means = ratios[:, valid].mean(1).tolist()
    return {**dict(zip(RATIOS, means, strict=True)), "left_out": int((~valid).sum())}


def _histogram(ratios: Mapping[str, Tensor]) -> list[Row]:
    """Fractions of adversarial images by ratio, pooled over the networks of one name.

    Args:
        ratios: r1 and r2 by network ``[2, n]``.
    """
    rows: list[Row] = []
    for index, ratio in enumerate(RATIOS):
        values = {name: both[index][~both[index].isnan()] for name, both in ratios.items()}
        pooled = torch.cat(list(values.values()))
        if not len(pooled):
            continue
        edges = torch.linspace(float(pooled.min()), float(pooled.max()), BINS + 1).double()
        for name, of_network in values.items():
            # The highest value lies in the last bin.
            bins = (torch.searchsorted(edges, of_network, right=True) - 1).clamp(0, BINS - 1)
            fractions = torch.bincount(bins, minlength=BINS) / max(len(of_network), 1)
            rows += [
                {"network": name, "ratio": ratio, "from": low, "to": high, "fraction": fraction}
                for low, high, fraction in zip(
                    edges[:-1].tolist(), edges[1:].tolist(), fractions.tolist(), strict=True
                )
            ]
    return rows


def _figure(histogram: Sequence[Row]) -> Figure:
    """Histograms, a panel per ratio, an outline per network (Figures 5 and 9)."""
    figure = Figure(figsize=(7.2, 2.8), dpi=120, layout="constrained")
    for axes, ratio in zip(figure.subplots(1, 2), RATIOS, strict=True):
        panel = [row for row in histogram if row["ratio"] == ratio]
        for name in dict.fromkeys(str(row["network"]) for row in panel):
            rows = [row for row in panel if row["network"] == name]
            edges = [float(row["from"]) for row in rows] + [float(rows[-1]["to"])]
            axes.stairs([float(row["fraction"]) for row in rows], edges, label=name, linewidth=1.2)
        axes.axvline(1, color="grey", linewidth=0.8, linestyle=":")
        axes.set_xlabel(ratio)
        axes.set_ylabel("fraction of adversarial images")
        axes.spines[["top", "right"]].set_visible(False)
        if panel:
            axes.legend(frameon=False)
    return figure
