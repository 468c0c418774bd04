"""Figures of neurons' top images and of CS against LC (Dong et al., Figures 2, 4, 7, 8)."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from cwx.errors import closest
from cwx.evaluations.neurons.regions import Regions
from cwx.evaluations.neurons.responses import LayerResponses
from cwx.evaluations.neurons.top_images import Activation
from cwx.evaluations.outcome import Row
from cwx.explanations.drawing import Tile, tiles
from cwx.explanations.text_fitting import shorten
from cwx.functional.top_activations import TopActivations
from cwx.networks.unit_outputs import unit_outputs
from cwx.training.subject import Subject

# From normalised images to the activations of the neurons of the sheet.
_Activations = Callable[[Tensor], Tensor]
# From indices to byte images.
_ReadImages = Callable[[Tensor], Tensor]


class Sheet:
    """Top images of some neurons, adversarial below real ones, with highlighted regions.

    The neurons are those of highest LC of a layer. A red frame marks an adversarial image whose
    target is a dominant class of the neuron: one of the fewest classes that make up half of its
    real top images.

    Args:
        layer: one of the audited layers; null for the last.
        neurons: number of neurons.
        images: number of images per neuron and set.
        occluder: side in pixels of the squares for discrepancy maps.
        stride: pixels from one square to the next.
        threshold: pixels above this fraction of the map's maximum are highlighted, in (0, 1].

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self,
        *,
        layer: str | None,
        neurons: Annotated[int, ">= 1, <= 1000"],
        images: Annotated[int, ">= 1, <= 1000"],
        occluder: Annotated[int, ">= 1"],
        stride: Annotated[int, ">= 1"],
        threshold: Annotated[float, "> 0, <= 1"],
    ) -> None:
        for name, value in (("neurons", neurons), ("images", images)):
            if value < 1:
                raise ValueError(f"evaluation.neurons.sheet.{name} is {value}: give 1 or more")
        if not 0 < threshold <= 1:
            raise ValueError(
                f"evaluation.neurons.sheet.threshold is {threshold}: give a fraction above 0, at "
                "most 1, of the highest of a discrepancy map"
            )
        self.layer, self.neurons, self.images = layer, neurons, images
        self.regions = Regions(occluder=occluder, stride=stride, threshold=threshold)

    def check(self, image_shape: tuple[int, int, int], layers: Sequence[str], setting: str) -> None:
        """Refuse occluders that do not fit the images, and a layer that is not audited.

        Raises:
            ValueError: with the remedy.
        """
        try:
            self.regions.occluders(image_shape)
        except ValueError as error:
            raise ValueError(f"{setting}.occluder and {setting}.stride: {error}") from error
        if self.layer is not None and self.layer not in layers:
            near = closest(self.layer, layers)
            raise ValueError(
                f"{setting}.layer is {self.layer!r}, which is not audited: give one such as "
                f"{', '.join(near)}, give null for the last, or add it to "
                f"{setting.rpartition('.')[0]}.layers"
            )

    def select_layer(self, layers: Sequence[LayerResponses]) -> LayerResponses:
        """The layer of the sheet."""
        return next((layer for layer in layers if layer.layer.name == self.layer), layers[-1])

    def draw(
        self,
        responses: LayerResponses,
        subject: Subject,
        network: nn.Module,
        activation: Activation,
    ) -> Figure:
        """The sheet of a layer of `network`, which is on the subject's device; collective."""
        neurons, test = responses.highest_lc(self.neurons), subject.data.splits.test
        with unit_outputs(network, [responses.layer], activation) as outputs:

            def highlights(top: TopActivations, read: _ReadImages) -> list[dict[int, Tensor]]:
                return self._highlights(
                    [_top_indices(top, neuron)[: self.images] for neuron in neurons],
                    read,
                    lambda images: outputs(images)[responses.layer.name][:, neurons],
                    subject,
                )

            real = highlights(responses.real, test.images.__getitem__)
            attacked = []
            if subject.adversarial is not None and responses.adversarial is not None:
                attacked = highlights(responses.adversarial, subject.adversarial.at)
        rows = []
        for rank, neuron in enumerate(neurons):
            name = f"{neuron}: LC {responses.values['lc'][neuron]:.2f}"
            rows.append((name, _real_tiles(real[rank], subject)))
            if attacked:
                dominant = responses.dominant_classes(neuron)
                rows.append(("adversarial", _adversarial_tiles(attacked[rank], subject, dominant)))
        return tiles(rows)

    def _highlights(
        self,
        indices: Sequence[Tensor],
        read: _ReadImages,
        activations: _Activations,
        subject: Subject,
    ) -> list[dict[int, Tensor]]:
        """For each neuron, its highlighted unit images by their indices; ranks divide the images.

        Args:
            indices: of the images of each neuron.
            read: byte images by index.
            activations: of the neurons of the sheet.
            subject: the study.
        """
        distinct = torch.cat(list(indices)).unique().tolist()

        def of_own_images() -> list[tuple[Tensor, Tensor]]:
            own = torch.tensor([*subject.ranks.own(distinct)], dtype=torch.long)
            unit_images = read(own).float() / 255
            return [(unit, self.regions.maps(unit, activations, subject)) for unit in unit_images]

        measured = subject.ranks.interleave(of_own_images)
        by_index = dict(zip(distinct, measured, strict=True))

        def highlighted(index: int, rank: int) -> Tensor:
            unit, maps = by_index[index]
            return self.regions.highlighted(unit, maps[rank])

        return [
            {index: highlighted(index, rank) for index in of_neuron.tolist()}
            for rank, of_neuron in enumerate(indices)
        ]


def _top_indices(top: TopActivations, neuron: int) -> Tensor:
    """A neuron's top images with an activation above those of all others."""
    return top.indices[:, neuron][top.responding[:, neuron]]


def _real_tiles(images: Mapping[int, Tensor], subject: Subject) -> list[Tile]:
    classes, labels = subject.data.classes, subject.data.splits.test.labels
    return [
        Tile(image, shorten(classes[labels[index]]), framed=False)
        for index, image in images.items()
    ]


def _adversarial_tiles(
    images: Mapping[int, Tensor], subject: Subject, dominant: Sequence[int]
) -> list[Tile]:
    classes, adversarial = subject.data.classes, subject.adversarial
    assert adversarial is not None
    row = []
    for index, image in images.items():
        label, target = int(adversarial.labels[index]), int(adversarial.targets[index])
        caption = f"{shorten(classes[label], 8)}→{shorten(classes[target], 8)}"
        row.append(Tile(image, caption, framed=target in dominant))
    return row


# Legend and colour of CS1 and CS2, and line style of their controls.
_LINES = {"cs1": ("$CS_1$, original class", "C0"), "cs2": ("$CS_2$, target class", "C3")}
_CONTROLS = {"permuted": ("… permuted classes", ":"), "noise": ("… noise of the same norm", "--")}


def similarity_curve(rows: Sequence[Row]) -> Figure:
    """CS1, CS2 and their controls against LC, and the neurons of each bin; a panel per network.

    Bands are ± two standard errors of the mean over the neurons of a bin.

    Args:
        rows: of the table ``neurons_curve``, with both CS.
    """
    by_network: dict[str, list[Row]] = {}
    for row in rows:
        by_network.setdefault(str(row["network"]), []).append(row)
    figure = Figure(figsize=(0.6 + 3.2 * len(by_network), 4.3), dpi=120, layout="constrained")
    panels = figure.subplots(
        2, len(by_network), sharey="row", sharex=True, squeeze=False, height_ratios=(4, 1)
    )
    for (curves, counts), (network, of_network) in zip(panels.T, by_network.items(), strict=True):
        _panel(curves, of_network)
        _count_bars(counts, of_network)
        curves.set_title(network, fontsize=9, parse_math=False)
    panels[0, 0].set_ylabel("mean similarity")
    panels[0, 0].set_ylim(0, 1)
    panels[0, 0].set_xlim(0, 1)
    panels[1, 0].set_ylabel("neurons")
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(),
        loc="outside lower center", ncols=2, frameon=False, fontsize=8,
    )  # fmt: skip
    return figure


def _panel(axes: Axes, rows: Sequence[Row]) -> None:
    for name, (label, colour) in _LINES.items():
        levels, means = _numbers(rows, name)
        axes.plot(levels, means, marker="o", markersize=3, color=colour, label=label)
        errors = dict(zip(*_numbers(rows, f"{name}_se"), strict=True))
        # A single neuron has no standard error: the band has a gap there.
        bands = [2 * errors.get(level, math.nan) for level in levels]
        low = [mean - band for mean, band in zip(means, bands, strict=True)]
        high = [mean + band for mean, band in zip(means, bands, strict=True)]
        axes.fill_between(levels, low, high, color=colour, alpha=0.2, linewidth=0)
        for control, (control_label, style) in _CONTROLS.items():
            if any(f"{name}_{control}" in row for row in rows):
                values = _numbers(rows, f"{name}_{control}")
                axes.plot(*values, color=colour, linestyle=style, label=control_label)
    axes.spines[["top", "right"]].set_visible(False)


def _numbers(rows: Sequence[Row], name: str) -> tuple[list[float], list[float]]:
    """LC and the values of a column, where it is not empty."""
    known = [row for row in rows if row[name] != ""]
    return [float(row["lc"]) for row in known], [float(row[name]) for row in known]


def _count_bars(axes: Axes, rows: Sequence[Row]) -> None:
    """The number of neurons of each bin, on a log scale that shows single ones."""
    axes.bar(
        [float(row["from"]) for row in rows],
        [float(row["neurons"]) for row in rows],
        width=[float(row["to"]) - float(row["from"]) for row in rows],
        align="edge", color="grey", edgecolor="white", linewidth=0.5,
    )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5)
    axes.set_xlabel("LC")
    axes.spines[["top", "right"]].set_visible(False)
