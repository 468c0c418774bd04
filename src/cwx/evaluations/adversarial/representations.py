"""Whether representations of adversarial images are those of what they show (Dong et al., §2.3)."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from cwx.data.adversarial_set import AdversarialSet
from cwx.data.datamodule import ImageData
from cwx.data.splits import ImageSet
from cwx.evaluations.adversarial.features import (
    Represent,
    adversarial_batches,
    check_networks,
    compared,
    representing,
)
from cwx.evaluations.outcome import Outcome, Row, Sources, over_networks
from cwx.functional.representation_distance import Pooling, RealRepresentations
from cwx.training.plan import Plan
from cwx.training.subject import Subject

log = logging.getLogger(__name__)

PLACE = "evaluation.representations"
RATIOS = ("r1", "r2")
# Of the histograms.
BINS = 60
# What fits into the memory of most machines.
MOST_BYTES = 16 * 2**30


class Representations:
    """r1 and r2 of all adversarial images, by network (Eq 6, 7; Figures 5, 9; D6).

    r1 is how far φ(x*) is from real images of its original's class, relative to how far these are
    from each other: 1 where an attack does not move it. r2 is how far it is from those of the class
    that it was made for, relative to how far these are from its original's: below 1 where an attack
    brings it nearer. Real images are test images.

    ``representations/<kind>/r1`` and ``/r2`` are means over adversarial images and over the
    networks of a kind. Images whose class or target has fewer than two real images have no ratio,
    nor have those whose class is one point to the network: ``…/left_out`` counts them. The table
    ``representations`` adds deviations over networks, ``representations_histogram`` and the figure
    ``representations`` have the share of adversarial images by ratio.

    Args:
        networks: names of kinds or evaluation networks; null for ``expert`` and ``fine_tuned``, as there are.
        layer: what gives φ; null for the last that gives maps of more than one place.
        pooling: from its maps to vectors.
        per_class: at most so many real images of each class, evenly spaced; null for all. Their φ
            are held in memory.

    Raises:
        ValueError: `per_class` is below 2.
    """

    def __init__(
        self,
        *,
        networks: Sequence[str] | None,
        layer: str | None,
        pooling: Pooling,
        per_class: int | None,
    ) -> None:
        if per_class is not None and per_class < 2:
            raise ValueError(
                f"{PLACE}.per_class is {per_class}, and a distance is between two images: give 2 "
                "or more, or null for all"
            )
        self.networks, self.layer = networks, layer
        self.pooling, self.per_class = pooling, per_class

    def check(self, plan: Plan) -> None:
        plan.require_adversarial("representations")
        labels = plan.data.splits.test.labels
        real = sum(len(p) for p in _places(labels, labels.unique(), self.per_class).values())
        for network in check_networks(plan, self.networks, self.layer, PLACE):
            asked = (plan.data, self.layer, self.pooling, PLACE)
            with representing(network.eval(), *asked) as represent:
                features, _ = represent(torch.zeros(1, *plan.data.image_shape))
            if (needed := 4 * real * features.shape[1]) > MOST_BYTES:
                raise ValueError(
                    f"{PLACE} would hold {features.shape[1]} features of each of {real} real "
                    f"images, {needed / 2**30:.0f} GiB: set {PLACE}.per_class to fewer images, or "
                    f"choose pooling@{PLACE}.pooling=mean"
                )

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        assert subject.adversarial is not None
        ask = Asked.of(subject.data.splits.test.labels, subject.adversarial, self.per_class)
        found = {
            kind: [self._ratios(network, subject, ask) for network in networks]
            for kind, networks in compared(subject, self.networks, PLACE).items()
        }
        rows: list[Row] = [
            {"network": kind, "replicate": place, **_means(ratios)}
            for kind, ratios_of in found.items()
            for place, ratios in enumerate(ratios_of)
        ]
        means = over_networks(rows, values=(*RATIOS, "left_out"))
        histogram = _histogram({kind: torch.cat(of, 1) for kind, of in found.items()})
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

    def _ratios(self, network: nn.Module, subject: Subject, ask: "Asked") -> Tensor:
        """r1 and r2 of each adversarial image, ``[2, n]``; NaN where it has none."""
        adversarial, data = subject.adversarial, subject.data
        assert adversarial is not None
        found = torch.full((2, len(adversarial)), torch.nan, dtype=torch.float64)
        if not ask.kept.any():
            return found
        test = data.splits.test
        with representing(network, data, self.layer, self.pooling, PLACE) as represent:
            real = RealRepresentations(
                {
                    label: _features(represent, data, test.at(places))
                    for label, places in ask.real.items()
                }
            )
            for rows, images in adversarial_batches(data, adversarial):
                if (kept := ask.kept[rows]).any():
                    of = torch.arange(rows.start, rows.stop)[kept]
                    labels, targets = adversarial.labels[of], adversarial.targets[of]
                    ratios = real.ratios(
                        represent(images[kept])[0], labels, targets, ask.originals[of]
                    )
                    found[:, of] = torch.stack(ratios)
        return torch.where(found.isfinite(), found, torch.nan)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What adversarial images are held against.

    Attributes:
        kept: boolean mask ``[n]``, the adversarial images that have ratios.
        real: by class, which test images stand for it.
        originals: ``[n]``, where the original of each is among those of its class; -1 if it is not.
    """

    kept: Tensor
    real: Mapping[int, Tensor]
    originals: Tensor

    @classmethod
    def of(cls, test: Tensor, adversarial: AdversarialSet, per_class: int | None) -> "Asked":
        """Those of test images with labels ``[t]``; tells what is left out."""
        labels, targets = adversarial.labels, adversarial.targets
        asked = torch.cat([labels, targets]).unique()
        real = {c: own for c, own in _places(test, asked, per_class).items() if len(own) > 1}
        there = torch.tensor([*real], dtype=torch.long)
        kept = torch.isin(labels, there) & torch.isin(targets, there)
        if not kept.all():
            log.warning(
                "%d of %d adversarial images are left out of representations: their class, or the "
                "one that they were made for, has fewer than two test images",
                int((~kept).sum()),
                len(kept),
            )
        originals = torch.full_like(labels, -1)
        for label, own in real.items():
            rows = labels == label
            nearest = torch.searchsorted(own, adversarial.originals[rows]).clamp(max=len(own) - 1)
            same = own[nearest] == adversarial.originals[rows]
            originals[rows] = torch.where(same, nearest, -1)
        return cls(kept=kept, real=real, originals=originals)


def _places(labels: Tensor, classes: Tensor, per_class: int | None) -> dict[int, Tensor]:
    """By class, where its images are, or `per_class` of them evenly spaced; in their order."""
    found = {c: (labels == c).nonzero()[:, 0] for c in classes.tolist()}
    if per_class is None:
        return found
    return {
        c: own[
            torch.arange(min(per_class, len(own))) * len(own) // max(min(per_class, len(own)), 1)
        ]
        for c, own in found.items()
    }


def _features(represent: Represent, data: ImageData, images: ImageSet) -> Tensor:
    return torch.cat([represent(batch.images)[0].cpu() for batch in data.in_order(images)])


def _means(ratios: Tensor) -> Row:
    there = ~ratios.isnan().any(0)
    means = ratios[:, there].mean(1).tolist()
    return {**dict(zip(RATIOS, means, strict=True)), "left_out": int((~there).sum())}


def _histogram(found: Mapping[str, Tensor]) -> list[Row]:
    """The share of adversarial images by ratio, of all networks of a kind together."""
    rows: list[Row] = []
    for place, name in enumerate(RATIOS):
        values = {kind: of[place][~of[place].isnan()] for kind, of in found.items()}
        every = torch.cat(list(values.values()))
        if not len(every):
            continue
        edges = torch.linspace(float(every.min()), float(every.max()), BINS + 1).double()
        for kind, own in values.items():
            # The highest value lies in the last bin.
            bins = (torch.searchsorted(edges, own, right=True) - 1).clamp(0, BINS - 1)
            fractions = torch.bincount(bins, minlength=BINS) / max(len(own), 1)
            rows += [
                {"network": kind, "ratio": name, "from": low, "to": high, "fraction": fraction}
                for low, high, fraction in zip(
                    edges[:-1].tolist(), edges[1:].tolist(), fractions.tolist(), strict=True
                )
            ]
    return rows


def _figure(histogram: Sequence[Row]) -> Figure:
    """A panel a ratio, an outline a kind of network (Figures 5 and 9)."""
    figure = Figure(figsize=(7.2, 2.8), dpi=120, layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), RATIOS, strict=True):
        rows = [row for row in histogram if row["ratio"] == name]
        for kind in dict.fromkeys(str(row["network"]) for row in rows):
            own = [row for row in rows if row["network"] == kind]
            edges = [float(row["from"]) for row in own] + [float(own[-1]["to"])]
            axes.stairs([float(row["fraction"]) for row in own], edges, label=kind, linewidth=1.2)
        axes.axvline(1, color="grey", linewidth=0.8, linestyle=":")
        axes.set_xlabel(name)
        axes.set_ylabel("share of adversarial images")
        axes.spines[["top", "right"]].set_visible(False)
        if rows:
            axes.legend(frameon=False)
    return figure
