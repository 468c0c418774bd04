"""Pictures of what neurons respond to (Dong et al., Figures 2, 4, 7 and 8; D2, D3, D5)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from cwx.errors import closest
from cwx.evaluations.neurons.responses import Responses
from cwx.evaluations.neurons.top_images import Activation
from cwx.evaluations.outcome import Row
from cwx.explanations.drawing import Tile, highlight, shorten, tiles
from cwx.functional.occlusion import Occluders, discrepancy, random_occluders
from cwx.functional.rng import stream
from cwx.functional.top_activations import Top
from cwx.networks.layer_outputs import layer_outputs
from cwx.training.subject import Subject

# Activations of the neurons shown, from normalised images.
_Read = Callable[[Tensor], Tensor]
# Images as bytes, by their indices.
_At = Callable[[Tensor], Tensor]


class Sheet:
    """Top images of some neurons, real above adversarial ones, what a neuron looks at highlighted.

    The neurons are those of the highest LC of a layer. A red frame is around an adversarial image
    whose target is one of the fewest classes that make up half of the neuron's real top images.

    Args:
        layer: one of those audited; null for the last.
        neurons: how many.
        images: of each neuron and set.
        occluder: the side in pixels of the squares by which discrepancy maps are made.
        stride: pixels from one to the next.
        threshold: what is highlighted, as a share of the map's highest, in (0, 1].

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self,
        *,
        layer: str | None,
        neurons: int,
        images: int,
        occluder: int,
        stride: int,
        threshold: float,
    ) -> None:
        for name, value in (("neurons", neurons), ("images", images)):
            if value < 1:
                raise ValueError(f"evaluation.neurons.sheet.{name} is {value}: give 1 or more")
        if not 0 < threshold <= 1:
            raise ValueError(
                f"evaluation.neurons.sheet.threshold is {threshold}: give a share above 0, at most "
                "1, of the highest of a discrepancy map"
            )
        self.layer, self.neurons, self.images = layer, neurons, images
        self.occluder, self.stride, self.threshold = occluder, stride, threshold

    def check(self, image_shape: tuple[int, int, int], layers: Sequence[str], setting: str) -> None:
        """Refuse occluders that do not fit the images, and a layer that is not audited.

        Raises:
            ValueError: with the remedy.
        """
        try:
            self._occluders(image_shape)
        except ValueError as error:
            raise ValueError(f"{setting}.occluder and {setting}.stride: {error}") from error
        if self.layer is not None and self.layer not in layers:
            near = closest(self.layer, layers)
            raise ValueError(
                f"{setting}.layer is {self.layer!r}, which is not audited: give one such as "
                f"{', '.join(near)}, give null for the last, or add it to "
                f"{setting.rpartition('.')[0]}.layers"
            )

    def _occluders(self, image_shape: tuple[int, int, int]) -> Occluders:
        # The same for all images and networks, so that these alone make a difference.
        return random_occluders(
            image_shape, size=self.occluder, stride=self.stride, generator=stream(0)
        )

    def of(self, found: Sequence[Responses]) -> Responses:
        """The layer that is shown."""
        return next((one for one in found if one.layer == self.layer), found[-1])

    def draw(
        self, found: Responses, subject: Subject, network: nn.Module, activation: Activation
    ) -> Figure:
        """The sheet of a layer of `network`, which lies on the subject's device."""
        neurons, test = found.highest(self.neurons), subject.data.splits.test
        with layer_outputs(network, [found.layer], activation) as outputs:

            def shown(top: Top, at: _At) -> list[dict[int, Tensor]]:
                return self._shown(
                    [_indices(top, neuron)[: self.images] for neuron in neurons],
                    at,
                    lambda images: outputs(images)[found.layer][:, neurons],
                    subject,
                )

            real = shown(found.real, test.images.__getitem__)
            attacked = []
            if subject.adversarial is not None and found.adversarial is not None:
                attacked = shown(found.adversarial, subject.adversarial.at)
        rows = []
        for place, neuron in enumerate(neurons):
            name = f"{neuron}: LC {found.values['lc'][neuron]:.2f}"
            rows.append((name, _real_tiles(real[place], subject)))
            if attacked:
                dominating = found.dominating(neuron)
                rows.append(("adversarial", _attacked_tiles(attacked[place], subject, dominating)))
        return tiles(rows)

    def _shown(
        self, indices: Sequence[Tensor], at: _At, read: _Read, subject: Subject
    ) -> list[dict[int, Tensor]]:
        """The images of each neuron, by their indices, as unit images with what it looks at."""
        every = torch.cat(list(indices)).unique()
        unit = dict(zip(every.tolist(), at(every).float() / 255, strict=True))
        maps = {index: self._maps(image, read, subject) for index, image in unit.items()}
        return [
            {i: highlight(unit[i], maps[i][place], self.threshold) for i in own.tolist()}
            for place, own in enumerate(indices)
        ]

    def _maps(self, unit: Tensor, read: _Read, subject: Subject) -> Tensor:
        """A discrepancy map of each neuron shown, ``[neurons, H, W]``."""
        normalization = subject.data.normalization
        occluders = self._occluders(subject.data.image_shape)
        return discrepancy(
            read,
            normalization.normalize(unit).to(subject.device),
            replace(occluders, patches=normalization.normalize(occluders.patches)),
            chunk=subject.data.batch_size,
        ).cpu()


def _indices(top: Top, neuron: int) -> Tensor:
    """A neuron's top images, those that it responds to."""
    return top.indices[:, neuron][top.responding[:, neuron]]


def _real_tiles(shown: Mapping[int, Tensor], subject: Subject) -> list[Tile]:
    classes, labels = subject.data.classes, subject.data.splits.test.labels
    return [
        Tile(image, shorten(classes[labels[index]]), framed=False) for index, image in shown.items()
    ]


def _attacked_tiles(
    shown: Mapping[int, Tensor], subject: Subject, dominating: Sequence[int]
) -> list[Tile]:
    classes, adversarial = subject.data.classes, subject.adversarial
    assert adversarial is not None
    found = []
    for index, image in shown.items():
        label, target = int(adversarial.labels[index]), int(adversarial.targets[index])
        caption = f"{shorten(classes[label], 8)}→{shorten(classes[target], 8)}"
        found.append(Tile(image, caption, framed=target in dominating))
    return found


# Those of CS1, the original classes, and CS2, the target classes.
_LINES = {"cs1": ("$CS_1$, original class", "C0"), "cs2": ("$CS_2$, target class", "C3")}


def curve(rows: Sequence[Row]) -> Figure:
    """CS1 and CS2 against LC with standard deviations, a panel a kind of network.

    Args:
        rows: of the table ``neurons_curve``, with both.
    """
    by_kind: dict[str, list[Row]] = {}
    for row in rows:
        by_kind.setdefault(str(row["kind"]), []).append(row)
    figure = Figure(figsize=(0.6 + 3.2 * len(by_kind), 2.8), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(by_kind), sharey=True, sharex=True, squeeze=False)[0]
    for axes, (kind, found) in zip(panels, by_kind.items(), strict=True):
        _panel(axes, found)
        axes.set_title(kind, fontsize=9, parse_math=False)
    panels[0].set_ylabel("mean similarity")
    panels[0].set_ylim(0, 1)
    panels[-1].legend(frameon=False, fontsize=8)
    return figure


def _panel(axes: Axes, rows: Sequence[Row]) -> None:
    levels = [float(row["lc"]) for row in rows]
    for name, (label, colour) in _LINES.items():
        means, spreads = ([float(row[key]) for row in rows] for key in (name, f"{name}_std"))
        axes.plot(levels, means, marker="o", markersize=3, color=colour, label=label)
        low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
        high = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
        axes.fill_between(levels, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel("LC")
    axes.spines[["top", "right"]].set_visible(False)
