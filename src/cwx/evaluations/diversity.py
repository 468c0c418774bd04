"""How much the images of one class differ from each other (CWX, §4)."""

import torch
from torch import Tensor

from cwx.evaluations.outcome import Outcome, Row, Sources, baselines
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import of_kind
from cwx.training.subject import Subject


class Diversity:
    """Mean distance and mean correlation over the pairs of projected images within a class.

    ``diversity/<source>/distance`` is the root mean squared pixel difference on the 0-1 scale,
    ``diversity/<source>/correlation`` Pearson's; the `baselines` stand beside the methods.
    A source of one image a class has no pairs and no numbers.
    """

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        normalization = subject.data.normalization
        everything = {**of_kind(sources, Explanations), **baselines(subject, sources)}
        rows: list[Row] = []
        for source, explanations in everything.items():
            projected = explanations.projected(normalization)
            for label, name in enumerate(subject.data.classes):
                unit = normalization.denormalize(projected.of(label))
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

    A constant image correlates with nothing (0).
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
    metrics = {}
    for source in dict.fromkeys(row["source"] for row in rows):
        mine = [row for row in rows if row["source"] == source]
        for name in ("distance", "correlation"):
            metrics[f"diversity/{source}/{name}"] = sum(float(r[name]) for r in mine) / len(mine)
    return metrics
