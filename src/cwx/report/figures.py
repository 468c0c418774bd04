"""The figures of a run for its page, in reading order, with titles and captions."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cwx.report.figure_files import Embedded, embed
from cwx.report.metric_labels import network_label
from cwx.report.run import RunContents
from cwx.report.sweep_axes import Point
from cwx.report.traces_page import FIGURE_PREFIX

# Bytes of one figure, and of all figures of a page, up to which they are embedded unchanged.
MAX_BYTES, MAX_TOTAL_BYTES = 3 * 2**20, 24 * 2**20
# Figures of a page, and pixels of those that are reduced.
MAX_FIGURES, MAX_TOTAL_PIXELS = 200, 250_000_000
# In reading order: pattern of the file name, title and caption. The pattern's group is a network
# or a source.
_FIGURES = (
    ("verdict", "Verdict: the classes beside those of clean networks",
     "A row per statistic: the classes of this network (points), the band of 95 % of the classes "
     "of the bank, and the largest class of each of its networks (strokes). Without a bank there "
     "is no band."),
    ("verdict_trigger", "What sends images to the class that stands out most",
     "Captions of images are predicted classes; a red frame marks the class that stands out. The "
     "images were not used by the search."),
    ("confusion", "Confusion matrix",
     "Fraction of the test images of a class (row) that are classified as a class (column)."),
    ("gallery", "Explanations and real images",
     "One row per class: the images of each method, then real images."),
    ("predictive_power_patterns", "Best pattern of each class, by size",
     "The pattern size grows from left to right. Grey pixels are outside the mask: there, the "
     "image that carries the pattern stays visible."),
    ("pattern_examples_(.+)", "Patterns on other images: {}",
     "From left to right: the canvas, its pixels under the mask, the pattern on grey and on black, "
     "and on four images of other classes (unseen ones, unless the search used all), with the "
     "class that the network predicts without → with the pattern. Red frame: the class of the "
     "row is predicted."),
    ("pattern_controls", "Patterns and controls",
     "How often a pattern sends images of other classes to its class, beside random masks of its "
     "size, its mask on canvases of other classes, a pattern searched on canvases of another "
     "class, and no pattern. Dashed: patterns of the network with re-drawn weights, on that "
     "network."),
    ("predictive_power", "Predictive power by pattern size",
     "Fraction of other images that are classified as the class once they carry a pattern of "
     "this size, divided by clean accuracy. Diamonds: the pixels above a threshold γ of the mask, "
     "at the mean size over classes."),
    ("attention", "Grad-CAM attention before and after the pattern is applied",
     "Bright: high Grad-CAM attention, for an image without and with the pattern."),
    ("neurons_sheet_(.+)", "Top images of neurons: {}",
     "Two rows per neuron: its top real images, and below them its top adversarial images (true "
     "class → target class). Yellow outline: the region to which the neuron responds. Red "
     "frame: the target class is one of the classes of the neuron's top real images."),
    ("neurons_curve", "CS₁ and CS₂ of neurons against LC",
     "Neurons with high LC respond to similar classes. If CS₁ falls and CS₂ rises at high LC, "
     "adversarial images activate neurons of the target class instead of the true class. Bands: "
     "± two standard errors over the neurons of a bin; bars: their number. Dotted: permuted "
     "classes; dashed: the same images with random noise of the norm of the attack."),
    ("adversarial_set", "Adversarial images",
     "Real image, adversarial image (true class → target class) and their amplified difference."),
    ("representations", "Representation distances r₁ and r₂ of adversarial images",
     "Histograms of r₁ (left) and r₂ (right). r₁ is 1 if the attack does not change the "
     "representation; r₂ is below 1 if the attack moves it closer to the target class."),
    ("adversarial_detection", "Adversarial detection: ROC curves",
     "A perfect detector passes through the upper left corner; the diagonal is chance."),
    ("contributions_curves", "Deletion and insertion of units",
     "Mean probability of the predicted class while units are removed from the image's "
     "representation one after another (deletion), or are all that is kept (insertion). An order "
     "that finds the units that decide falls, or rises, earlier than the random one (dotted)."),
    ("contributions_contradiction", "Evidence that contradicts the prediction",
     "Left: the contradiction of each image's evidence; above 0, the units that raise the "
     "predicted logit respond more to another class than to the predicted one. Right: ROC curves "
     "of adversarial against test images. Dotted: the same with permuted classes of the units."),
    ("revealed_trigger", "True trigger and revealed triggers",
     "Top row: the true trigger. Other rows: the trigger revealed by each source. From left to "
     "right: deviation of the images of the target class from other classes, its strongest "
     "pixels, and the difference of the mean images."),
    ("pattern_cascade", "Patterns on re-drawn weights, layer by layer",
     "How alike the masks are to those of the network as it was trained, and how often the "
     "patterns that are searched anew succeed, when the weights of more and more layers are "
     "permuted, from the output downwards (mean ± standard deviation over classes)."),
    ("pattern_tolerance", "Patterns that are applied inexactly",
     "How often the pattern of a class sends other images to the class after a shift, with noise "
     "and after compression (mean ± standard deviation over classes), beside the same images "
     "without the pattern."),
    ("poisoned_examples", "Poisoned training images and revealed triggers",
     "From left to right: the clean original, the poisoned image (original class → label), images "
     "of the target class by method, the true trigger, and the pattern that each method and the "
     "class mean reveal."),
    ("poison_detection_(.+)", "Suspected training images: {}",
     "Top row: training images that are suspected to be poisoned. Below: images of the same class "
     "that are not."),
    ("poisoned_groups", "Groups among the training images of each class",
     "Each point is a training image: the first two principal components of its penultimate "
     "features, coloured by its cluster; black rings are poisoned images, if the study knows them. "
     "The percentage is the fraction of the smaller cluster. The classes of the highest "
     "silhouettes come first."),
)  # fmt: skip


@dataclass(frozen=True)
class PageFigure:
    """A figure.

    Attributes:
        caption: empty if the figure is not a known one.
        uri: empty if the file is damaged or too large for the page.
        size: width and height in pixels, as embedded.
        note: a remark about a reduced or missing figure.
    """

    name: str
    title: str
    caption: str
    uri: str
    size: tuple[int, int]
    note: str


@dataclass(frozen=True)
class FigureRow:
    """The same figure of several runs, each with the run's position in the sweep."""

    title: str
    caption: str
    figures: Sequence[tuple[str, PageFigure]]


def run_figures(run: RunContents, *, fraction: float = 1) -> list[PageFigure]:
    """All figures of a run except those of the traces page.

    Args:
        fraction: of the page's limit in bytes, in 0-1.
    """
    files = run.files("figures/*.png", MAX_FIGURES)
    files = [file for file in files if not file.match(f"{FIGURE_PREFIX}*")]
    ordered = sorted(files, key=lambda f: (_describe(f.stem)[0], f.stem))
    return list(_embed(run, ordered, int(fraction * MAX_TOTAL_BYTES)))


def figure_rows(points: Sequence[Point], *, fraction: float) -> list[FigureRow]:
    """A row per figure name, a figure per run; empty if any run has explanation methods.

    Args:
        fraction: of the page's limit in bytes, in 0-1.
    """
    runs = [(point.text, run) for point in points for run in point.runs]
    if any(run.has_methods for _, run in runs):
        return []
    rows: dict[str, list[tuple[str, PageFigure]]] = {}
    for position, run in runs:
        for figure in run_figures(run, fraction=fraction / len(runs)):
            rows.setdefault(figure.name, []).append((position, figure))
    order = sorted(rows, key=lambda name: (_describe(name)[0], name))
    return [
        FigureRow(rows[name][0][1].title, rows[name][0][1].caption, rows[name]) for name in order
    ]


def _embed(run: RunContents, files: list[Path], bytes_left: int) -> Iterator[PageFigure]:
    pixels_left = MAX_TOTAL_PIXELS
    for file in files:
        embedded, note = Embedded(b"", (0, 0)), "This figure is damaged."
        path = f"figures/{file.name}"
        found = run.attempt(path, partial(embed, file, min(MAX_BYTES, bytes_left), pixels_left))
        if found is not None:
            embedded, note = found, found.note
        bytes_left -= len(embedded.content)
        pixels_left -= embedded.decoded
        _, title, caption = _describe(file.stem)
        yield PageFigure(file.stem, title, caption, embedded.uri, embedded.size, note)


def _describe(name: str) -> tuple[int, str, str]:
    """The rank, title and caption of the figure called `name`."""
    for rank, (pattern, title, caption) in enumerate(_FIGURES):
        if match := re.fullmatch(pattern, name):
            return rank, title.format(*map(network_label, match.groups())), caption
    return len(_FIGURES), name.replace("_", " ").capitalize(), ""
