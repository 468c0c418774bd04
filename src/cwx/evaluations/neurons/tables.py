"""The tables of neurons: classes, layers, neurons of highest LC, and means by LC."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cwx.evaluations.neurons.responses import LayerResponses
from cwx.evaluations.outcome import Row
from cwx.functional.class_similarity import bin_statistics

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
        **{
            name: values[responding].mean().item() if responding.any() else ""
            for name, values in layer.values.items()
        },
    }


def top_rows(network: str, layer: LayerResponses, count: int, classes: Sequence[str]) -> list[Row]:
    return [
        {
            "network": network,
            "layer": layer.layer.name,
            "neuron": neuron,
            **{name: values[neuron].item() for name, values in layer.values.items()},
            "class": classes[layer.dominant_classes(neuron)[0]],
            "fraction": layer.fractions[neuron].max().item(),
        }
        for neuron in layer.highest_lc(count)
    ]


def curve_rows(by_network: Mapping[str, Mapping[str, Tensor]], bins: int) -> list[Row]:
    """Means and deviations in bins of LC, the same bins for all networks; empty bins are left out.

    Args:
        by_network: measures by network and name, each ``[neurons]``.
        bins: number of bins.
    """
    levels = torch.cat([values["lc"] for values in by_network.values()])
    if not len(levels):
        return []
    edges = torch.linspace(levels.min().item(), levels.max().item(), bins + 1, dtype=levels.dtype)
    centres = (edges[1:] + edges[:-1]) / 2
    rows: list[Row] = []
    for network, values in by_network.items():
        statistics = {name: bin_statistics(values["lc"], v, edges) for name, v in values.items()}
        counts = statistics["lc"].count
        for index in counts.nonzero()[:, 0].tolist():
            row = {"network": network, "lc": centres[index].item()}
            row["neurons"] = int(counts[index])
            for name in [name for name in values if name != "lc"]:
                row[name] = statistics[name].mean[index].item()
                row[f"{name}_std"] = statistics[name].std[index].item()
            rows.append(row)
    return rows
