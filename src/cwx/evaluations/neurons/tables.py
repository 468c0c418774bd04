"""The tables of neurons: classes, layers, neurons of highest LC, and means by LC."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cwx.evaluations.neurons.responses import LayerResponses, mean_of
from cwx.evaluations.outcome import Row
from cwx.functional.class_similarity import BinStatistics, bin_statistics

# Pairs of classes in the table of the closest.
PAIRS = 5


def closest_classes(correlation: Tensor, classes: Sequence[str]) -> list[Row]:
    """The pairs of classes of highest correlation, in descending order."""
    first, second = torch.triu_indices(len(classes), len(classes), offset=1)
    values, order = correlation[first, second].sort(descending=True, stable=True)
    return [
        {
            "first_class": classes[int(first[pair])],
            "second_class": classes[int(second[pair])],
            "correlation": value,
        }
        for value, pair in zip(values[:PAIRS].tolist(), order[:PAIRS].tolist(), strict=True)
    ]


def layer_row(network: str, layer: LayerResponses) -> Row:
    responding = layer.responding
    return {
        "network": network,
        "layer": layer.layer.name,
        "read_after": layer.layer.place,
        "neurons": len(responding),
        "inactive": int((~responding).sum()),
        "top": len(layer.real.values),
        **{name: _cell(mean_of(values[responding])) for name, values in layer.values.items()},
    }


def top_rows(network: str, layer: LayerResponses, count: int, classes: Sequence[str]) -> list[Row]:
    return [
        {
            "network": network,
            "layer": layer.layer.name,
            "neuron": neuron,
            **{name: _cell(mean_of(values[neuron])) for name, values in layer.values.items()},
            "class": classes[layer.dominant_classes(neuron)[0]],
            "fraction": layer.fractions[neuron].max().item(),
        }
        for neuron in layer.highest_lc(count)
    ]


def curve_rows(by_network: Mapping[str, Mapping[str, Tensor]], bins: int) -> list[Row]:
    """Means in equal bins of LC between 0 and 1, the same for all networks and runs.

    Empty bins are left out. For each measure: its mean over the neurons of the bin, their standard
    deviation (ddof 0), and the standard error of the mean, which one neuron does not have.

    Args:
        by_network: measures by network and name, each ``[neurons]``.
        bins: number of bins.
    """
    edges = torch.arange(bins + 1, dtype=torch.float64) / bins
    rows: list[Row] = []
    for network, values in by_network.items():
        level = values["lc"]
        statistics = {name: _in_bins(level, v, edges) for name, v in values.items()}
        counts = statistics["lc"].count
        for index in counts.nonzero()[:, 0].tolist():
            low, high = edges[index].item(), edges[index + 1].item()
            row: dict[str, str | int | float] = {"network": network, "lc": (index + 0.5) / bins}
            row |= {"from": low, "to": high, "neurons": int(counts[index])}
            for name in [name for name in values if name != "lc"]:
                row |= _measured(name, statistics[name], index)
            rows.append(row)
    return rows


def _in_bins(level: Tensor, values: Tensor, edges: Tensor) -> BinStatistics:
    known = ~values.isnan()
    return bin_statistics(level[known], values[known], edges)


def _measured(name: str, statistics: BinStatistics, index: int) -> dict[str, str | int | float]:
    """The columns of a measure in one bin; empty without a neuron."""
    count = int(statistics.count[index])
    std = statistics.std[index].item()
    return {
        name: statistics.mean[index].item() if count else "",
        f"{name}_std": std if count else "",
        f"{name}_se": std / (count - 1) ** 0.5 if count > 1 else "",
    }


def _cell(value: float | None) -> float | str:
    return "" if value is None else value
