"""The power of patterns on networks that they were not searched on (ISCP, §4.3, Figure 8)."""

import math
from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from cwx.evaluations.outcome import Row, mean_over_networks, measure_networks
from cwx.evaluations.patterns.probe import Probe
from cwx.evaluations.patterns.set_power import SetPower, measure_power, split_by_target
from cwx.storage.metric_names import class_metric
from cwx.training.subject import Subject


def transfer_rows(subject: Subject, powers: Sequence[SetPower], indices: Tensor) -> list[Row]:
    """The power of each class's best pattern on all other networks, and on the explained network.

    The explained network is the first of its kind; on itself the ratio would be 1.

    Args:
        subject: the networks and the data.
        powers: on the explained networks.
        indices: of the test images to measure on.

    Returns:
        A row per pattern and kind of network, for patterns with a power outside D_n; none if the
        study has a single network.
    """
    panel, images = subject.panel(), subject.data.splits.test.at(indices)

    def measure(network: nn.Module, explained: str) -> list[Row]:
        probe = Probe(subject, network, images)
        return [
            {
                "source": row["source"],
                "size": row["size"],
                "class": row["class"],
                "explained": row["power"],
                "power": measure_power(
                    probe.predict(candidate.attach, candidate.label),
                    probe,
                    candidate.label,
                    power.candidates.searched[indices],
                    relative=power.candidates.relative,
                )["power"],
            }
            for power in powers
            if power.candidates.explains == explained
            for candidate, row in zip(power.best, power.class_rows, strict=True)
            # Else the search used all images.
            if row["power"] != ""
        ]

    rows: list[Row] = []
    for explained in dict.fromkeys(power.candidates.explains for power in powers):
        others = {
            kind: networks[1:] if kind == explained else networks
            for kind, networks in panel.items()
        }
        rows += measure_networks(others, partial(measure, explained=explained))
    return [
        {
            **row,
            "rate": ratio(row, "power", "explained"),
            "printed_rate": ratio(row, "explained", "power"),
        }
        for row in mean_over_networks(rows, values=("power",))
    ]


def ratio(row: Row, numerator: str, denominator: str) -> float | str:
    """The ratio of two columns; empty if it, or one of them, is not finite."""
    dividend, divisor = float(row[numerator]), float(row[denominator])
    finite = math.isfinite(dividend) and math.isfinite(divisor) and divisor
    return dividend / divisor if finite else ""


def transfer_metrics(rows: Sequence[Row], target: str | None) -> dict[str, float]:
    """The metrics of `transfer_rows`: means over classes, and those of each class.

    Both means are over the classes whose power is finite on both networks; ``…/left_out`` is the
    number of the others, if there are any. A class with a power of 0 on the explained network has
    no ratio of its own.

    Args:
        rows: the result of `transfer_rows`.
        target: the target class of a backdoor; ``None`` without one.
    """
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        name = f"predictive_power/transfer/{row['source']}/{row['size']}/{row['network']}"
        by_name.setdefault(name, []).append(row)
    metrics: dict[str, float] = {}
    for name, group in by_name.items():
        metrics |= _ratio_of_means(name, group)
        for part, part_rows in split_by_target(group, target).items():
            metrics |= _ratio_of_means(f"{name}/{part}", part_rows)
        for row in group:
            if row["rate"] != "":
                metrics[class_metric(name, str(row["class"]))] = float(row["rate"])
    return metrics


def _ratio_of_means(name: str, rows: Sequence[Row]) -> dict[str, float]:
    pairs = [
        (other, explained)
        for row in rows
        if math.isfinite(other := float(row["power"]))
        and math.isfinite(explained := float(row["explained"]))
    ]
    total = math.fsum(explained for _, explained in pairs)
    metrics = {name: math.fsum(other for other, _ in pairs) / total} if total else {}
    if left_out := len(rows) - len(pairs):
        metrics[f"{name}/left_out"] = left_out
    return metrics
