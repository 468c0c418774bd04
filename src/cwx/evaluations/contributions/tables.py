"""Tables of contributions, flips and curves."""

from collections.abc import Mapping

import torch
from torch import Tensor

from cwx.evaluations.contributions.measurement import CURVE_ORDERS, ROLES, Measures
from cwx.evaluations.outcome import Row
from cwx.functional.spacing import evenly_spaced_with_ends
from cwx.functional.unit_contributions import area

# Points of each curve in the table.
POINTS = 41
ORDERS = ("greedy", *CURVE_ORDERS)
# Scores with a metric of their own; the table has the others.
METRIC_SCORES = ("contradiction", "permuted", "gaussian", "confidence")


def contribution_rows(network: str, kind: str, measures: Measures) -> list[Row]:
    """Means and standard deviations over images of the contributions to each logit.

    ``supporting`` is the sum of an image's positive contributions, ``opposing`` that of the
    negative ones, ``total`` both, ``largest`` the highest of a unit. ``agreement`` is the mean
    correlation, over the units of an image, with the contributions by zero ablation.
    """
    rows: list[Row] = []
    for name, contributions in measures.contributions.items():
        for role, label in enumerate(ROLES):
            own, zero = contributions[..., role], measures.contributions["zero"][..., role]
            if own.isnan().all():
                continue
            sums = {
                "total": own.sum(1),
                "supporting": own.clamp(min=0).sum(1),
                "opposing": own.clamp(max=0).sum(1),
                "largest": own.amax(1),
            }
            row: dict[str, str | int | float] = {
                "network": network, "kind": kind, "ablation": name, "logit": label
            }  # fmt: skip
            for column, values in sums.items():
                row[column] = values.mean().item()
                row[f"{column}_std"] = values.std().item() if len(values) > 1 else ""
            agreement = _correlations(own, zero).nanmean().item()
            row["agreement"] = "" if agreement != agreement else agreement
            rows.append({**row, "images": len(own)})
    return rows


def _correlations(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation of rows ``[n, units]``: ``[n]``, NaN without variation."""
    first, second = (values - values.mean(1, keepdim=True) for values in (first, second))
    norms = first.norm(dim=1) * second.norm(dim=1)
    correlations: Tensor = (first * second).sum(1) / norms.masked_fill(norms == 0, torch.nan)
    return correlations


def flip_rows(network: str, kind: str, measures: Measures, units: int, limit: int) -> list[Row]:
    """Quartiles of the units until the prediction flips, and the share of images without a flip.

    A quartile is empty if too many predictions do not flip.

    Args:
        network, kind: of the images.
        measures: of the images.
        units: of the layer.
        limit: of greedy removal.
    """
    rows: list[Row] = []
    for order in ORDERS:
        flips = measures.flips[order]
        # The value below which a share of the images lies, without interpolation towards ∞.
        quartiles = flips.quantile(
            torch.tensor([0.25, 0.5, 0.75], dtype=flips.dtype), interpolation="higher"
        )
        cells = ["" if value == torch.inf else value for value in quartiles.tolist()]
        rows.append(
            {
                "network": network,
                "kind": kind,
                "order": order,
                "quarter": cells[0],
                "median": cells[1],
                "three_quarters": cells[2],
                "never": flips.isinf().double().mean().item(),
                "removed": min(limit, units) if order == "greedy" else units,
                "units": units,
                "images": len(flips),
            }
        )
    return rows


def area_rows(network: str, kind: str, measures: Measures) -> list[Row]:
    """Means and standard deviations over images of the areas under their curves."""
    rows: list[Row] = []
    for order in CURVE_ORDERS:
        row: dict[str, str | int | float] = {"network": network, "kind": kind, "order": order}
        for name, curves in (("deletion", measures.deletion), ("insertion", measures.insertion)):
            areas = area(curves[order])
            row[name] = areas.mean().item()
            row[f"{name}_std"] = areas.std().item() if len(areas) > 1 else ""
        rows.append({**row, "images": len(measures.logits)})
    return rows


def curve_rows(network: str, kind: str, measures: Measures) -> list[Row]:
    """Points of the mean curves, at fractions of the units."""
    rows: list[Row] = []
    for order in CURVE_ORDERS:
        deletion, insertion = (
            of_kind[order].mean(0) for of_kind in (measures.deletion, measures.insertion)
        )
        last = len(deletion) - 1
        for count in evenly_spaced_with_ends(last + 1, POINTS).tolist():
            rows.append(
                {
                    "network": network,
                    "kind": kind,
                    "order": order,
                    "fraction": count / last,
                    "deletion": deletion[count].item(),
                    "insertion": insertion[count].item(),
                }
            )
    return rows


def metrics_of(prefix: str, tables: Mapping[str, list[Row]], ablation: str) -> dict[str, float]:
    """Metrics by name, from the rows of one network.

    Args:
        prefix: of the names.
        tables: rows by table.
        ablation: that of the scores.
    """
    metrics: dict[str, float] = {}
    for row in tables["contributions"]:
        name = f"{prefix}/{row['kind']}/{row['ablation']}/{row['logit']}"
        metrics[name] = float(row["total"])
    for row in tables["contributions_flips"]:
        if row["median"] != "":
            metrics[f"{prefix}/{row['kind']}/flip/{row['order']}"] = float(row["median"])
    for row in tables["contributions_areas"]:
        for name in ("deletion", "insertion"):
            metrics[f"{prefix}/{row['kind']}/{name}/{row['order']}"] = float(row[name])
    for row in tables["contributions_auc"]:
        if row["score"] in METRIC_SCORES and row["ablation"] in ("", ablation):
            metrics[f"{prefix}/auc/{row['score']}"] = float(row["auc"])
    return metrics
