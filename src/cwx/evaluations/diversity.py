"""Differences between the images of one class (CWX, §4)."""

import torch
from torch import Tensor

from cwx.evaluations.outcome import Outcome, Row, Sources, baselines
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import of_kind
from cwx.training.subject import Subject


class Diversity:
    """Mean distance and within-class correlation over the pairs of projected images of a class.

    ``diversity/<source>/distance`` is the root mean squared pixel difference on the 0-1 scale,
    ``diversity/<source>/correlation`` Pearson's correlation; both are means over classes. Sources
    are the methods and the `baselines`. The table ``diversity`` has a row per source and class.
    A source with one image per class has no pairs and no metrics.
    """

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        normalization = subject.data.normalization
        evaluated = {**of_kind(sources, Explanations), **baselines(subject, sources)}
        rows: list[Row] = []
        for source, explanations in evaluated.items():
            projected = explanations.project(normalization)
            for label, name in enumerate(subject.data.classes):
                unit = normalization.denormalize(projected.of_class(label))
                if len(unit) > 1:
                    distance, correlation = pairwise(unit)
                    rows.append(
                        {
                            "source": source,
                            "class": name,
                            "distance": distance,
                            "correlation": correlation,
                        }
                    )
        return Outcome(metrics=_means(rows), tables={"diversity": rows} if rows else {})


def pairwise(images: Tensor) -> tuple[float, float]:
    """Mean RMS difference and mean Pearson correlation over the pairs of ``[n, C, H, W]``, n > 1.

    The correlation of a constant image with any other is 0.
    """
    flat = images.flatten(1).double()
    upper = torch.triu_indices(len(flat), len(flat), offset=1)
    first, second = flat[upper[0]], flat[upper[1]]
    distance = (first - second).square().mean(1).sqrt().mean()
    centred = flat - flat.mean(1, keepdim=True)
    unit = torch.nn.functional.normalize(centred, dim=1)
    correlation = (unit[upper[0]] * unit[upper[1]]).sum(1).mean()
    return distance.item(), correlation.item()


def _means(rows: list[Row]) -> dict[str, float]:
    """Means over classes, by metric name."""
    metrics = {}
    for source in dict.fromkeys(row["source"] for row in rows):
        of_source = [row for row in rows if row["source"] == source]
        for name in ("distance", "correlation"):
            total = sum(float(row[name]) for row in of_source)
            metrics[f"diversity/{source}/{name}"] = total / len(of_source)
    return metrics
