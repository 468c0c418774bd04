"""The figure of a trace: an image and the top images of its neurons (Dong et al., Figure 10)."""

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from cwx.data.splits import ImageSet
from cwx.evaluations.traces.trace import Neuron, Trace
from cwx.explanations.drawing import DPI, to_pixels, whole_factor
from cwx.explanations.text_fitting import shorten

# Top images per neuron.
TOP_IMAGES = 8
# Inches: sides of the traced image and of a top image, text above and below, margins.
IMAGE, TILE, ABOVE, BELOW, MARGIN = 2.1, 0.88, 0.26, 0.26, 0.12


def trace_figure(trace: Trace, test: ImageSet, classes: Sequence[str]) -> Figure:
    """The traced image on the left; on the right, the top test images of each neuron in a row.

    Args:
        trace: the prediction and its neurons.
        test: the test images, as bytes.
        classes: names, which may hold any character.
    """
    columns = max((len(n.strongest[:TOP_IMAGES]) for n in trace.neurons), default=0)
    left, row = IMAGE + 2 * MARGIN, ABOVE + TILE + BELOW
    caption = _caption(trace, classes)
    left_height = ABOVE + IMAGE + 0.16 * (len(caption) + 1)
    page = _Page(
        width=left + max(columns * TILE, 3.4) + MARGIN,
        height=max(left_height, len(trace.neurons) * row) + 2 * MARGIN,
    )
    probability = trace.probabilities[trace.predicted].item()
    title = f"{shorten(classes[trace.predicted], 22)} ({probability:.2f})"
    page.text(title, MARGIN, MARGIN, size=11)
    page.image(trace.image.pixels.float() / 255, MARGIN, MARGIN + ABOVE, IMAGE)
    page.text("\n".join(caption), MARGIN, MARGIN + ABOVE + IMAGE + 0.06, size=8)
    for number, neuron in enumerate(trace.neurons):
        top = MARGIN + number * row
        page.text(_heading(neuron, trace, classes), left, top, size=8.5)
        for column, index in enumerate(neuron.strongest[:TOP_IMAGES].tolist()):
            x, name = left + column * TILE, classes[int(test.labels[index])]
            page.image(test.images[index].float() / 255, x, top + ABOVE, TILE - 0.06)
            page.text(shorten(name, 12), x, top + ABOVE + TILE - 0.03, size=7)
    if not trace.neurons:
        page.text(f"no channel of {trace.layer} makes a difference", left, MARGIN, size=8.5)
    return page.figure


class _Page:
    """A figure with coordinates in inches from its upper left corner."""

    def __init__(self, *, width: float, height: float) -> None:
        width, height = (math.ceil(side * DPI) / DPI for side in (width, height))
        self.figure = Figure(figsize=(width, height), dpi=DPI)
        # A single axes: many take long to draw.
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.axes.set_xlim(0, width)
        self.axes.set_ylim(height, 0)
        self.axes.autoscale(False)

    def text(self, text: str, x: float, y: float, *, size: float) -> None:
        # A class name may have a dollar sign, which must not start a formula.
        self.axes.text(x, y, text, fontsize=size, va="top", parse_math=False)

    def image(self, unit: Tensor, x: float, y: float, side: float) -> None:
        """Keeps the aspect ratio; the longer side has at most the length `side`.

        A pixel of a small image is a square of whole pixels of the figure.
        """
        pixels = max(unit.shape[1:])
        small = pixels <= side * DPI
        scale = whole_factor(unit.shape, round(side * DPI)) / DPI if small else side / pixels
        height, width = (scale * length for length in unit.shape[1:])
        x, y = (round(position * DPI) / DPI for position in (x, y))
        # A rounding error upwards would add a pixel, and resample the image unevenly.
        tiny = 0.01 / DPI
        self.axes.imshow(
            to_pixels(unit),
            extent=(x + tiny, x + width - tiny, y + height - tiny, y + tiny),
            aspect="auto",
            interpolation="nearest",
        )


def _caption(trace: Trace, classes: Sequence[str]) -> list[str]:
    """Lines with the network, the label, the target, and the channels until a flip."""
    image, lines = trace.image, [f"network: {trace.network}"]
    if image.label is not None:
        lines.append(f"label: {shorten(classes[image.label], 22)}")
    if image.target is not None:
        lines.append(f"target: {shorten(classes[image.target], 22)}")
    if trace.flip is not None:
        plural = "s" if trace.flip > 1 else ""
        lines.append(f"flips without {trace.flip} channel{plural}")
    return lines


def _heading(neuron: Neuron, trace: Trace, classes: Sequence[str]) -> str:
    without = f"{shorten(classes[trace.predicted], 22)} ({neuron.without[trace.predicted]:.2f})"
    logit = f"logit {neuron.contributions[trace.predicted]:+.2g}"
    return f"channel {neuron.channel}, PD {neuron.difference:.3g}, {logit}; without it {without}"
