"""The picture of a trace: an image, and what its most influential neurons fire for (Figure 10)."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from cwx.data.splits import ImageSet
from cwx.evaluations.traces.trace import Neuron, Trace
from cwx.explanations.drawing import shorten, to_pixels

# Images of a neuron that are shown.
SHOWN = 8
# Inches: sides of the traced image and of a neuron's, what words take above and below, margins.
IMAGE, TILE, ABOVE, BELOW, MARGIN = 2.1, 0.88, 0.26, 0.26, 0.12


def trace_figure(trace: Trace, test: ImageSet, classes: Sequence[str]) -> Figure:
    """The traced image on the left, a row of a neuron's strongest test images for each neuron.

    Args:
        test: the test images, as bytes.
        classes: their names, which may hold any character.
    """
    shown = max((len(n.strongest[:SHOWN]) for n in trace.neurons), default=0)
    left, row = IMAGE + 2 * MARGIN, ABOVE + TILE + BELOW
    origin = _origin(trace, classes)
    beside = ABOVE + IMAGE + 0.16 * (len(origin) + 1)
    page = _Page(
        width=left + max(shown * TILE, 3.4) + MARGIN,
        height=max(beside, len(trace.neurons) * row) + 2 * MARGIN,
    )
    chance = trace.probabilities[trace.predicted].item()
    page.words(f"{shorten(classes[trace.predicted], 22)} ({chance:.2f})", MARGIN, MARGIN, size=11)
    page.image(trace.pictured.pixels.float() / 255, MARGIN, MARGIN + ABOVE, IMAGE)
    page.words("\n".join(origin), MARGIN, MARGIN + ABOVE + IMAGE + 0.06, size=8)
    for number, neuron in enumerate(trace.neurons):
        top = MARGIN + number * row
        page.words(_heading(neuron, trace, classes), left, top, size=8.5)
        for column, index in enumerate(neuron.strongest[:SHOWN].tolist()):
            x, name = left + column * TILE, classes[int(test.labels[index])]
            page.image(test.images[index].float() / 255, x, top + ABOVE, TILE - 0.06)
            page.words(shorten(name, 12), x, top + ABOVE + TILE - 0.03, size=7)
    if not trace.neurons:
        page.words(f"no channel of {trace.layer} makes a difference", left, MARGIN, size=8.5)
    return page.figure


class _Page:
    """A figure drawn on in inches from its upper left corner."""

    def __init__(self, *, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width, height), dpi=120)
        # One for everything: many axes take long.
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.axes.set_xlim(0, width)
        self.axes.set_ylim(height, 0)
        self.axes.autoscale(False)

    def words(self, text: str, x: float, y: float, *, size: float) -> None:
        # A name is the user's text: a dollar sign in it must not start a formula.
        self.axes.text(x, y, text, fontsize=size, va="top", parse_math=False)

    def image(self, unit: Tensor, x: float, y: float, side: float) -> None:
        """In its own shape, the longer side of `side`."""
        height, width = (side * length / max(unit.shape[1:]) for length in unit.shape[1:])
        self.axes.imshow(
            to_pixels(unit),
            extent=(x, x + width, y + height, y),
            aspect="auto",
            interpolation="nearest",
        )


def _origin(trace: Trace, classes: Sequence[str]) -> list[str]:
    """Lines that say whose prediction it is, and of what."""
    pictured, lines = trace.pictured, [f"to the {trace.network} network"]
    if pictured.label is not None:
        lines.append(f"shows {shorten(classes[pictured.label], 22)}")
    if pictured.target is not None:
        lines.append(f"made for {shorten(classes[pictured.target], 22)}")
    return lines


def _heading(neuron: Neuron, trace: Trace, classes: Sequence[str]) -> str:
    without = f"{shorten(classes[trace.predicted], 22)} ({neuron.without[trace.predicted]:.2f})"
    return f"channel {neuron.channel}, PD {neuron.difference:.3g}; without it {without}"
