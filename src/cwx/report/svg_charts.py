"""Line and bar charts as SVG in a page's own colours, light or dark."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Placeholder colours, which the page's colours replace.
INK = "#010203"
LINES = tuple(f"#0102{n:02x}" for n in range(0x10, 0x18))
_PAGE_COLOURS = {INK: "currentColor"} | {c: f"var(--line-{n})" for n, c in enumerate(LINES)}
_HEAD = re.compile(r"\A.*?<svg ", re.DOTALL)
_NAMESPACES = re.compile(r' (?:xmlns(?::\w+)?|version)="[^"]*"')
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_SIZE = re.compile(r'(?<= )(?:width|height)="[\d.]+pt" ?')
_STYLE = re.compile(r'style="[^"]*"')
# A style sheet would apply to the whole page, and group ids repeat in every chart.
_SHEET = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)
_GROUP = re.compile(r'<g id="[^"]*"')
_FONT = re.compile(r"font-family: [^;]*; ")
# Metadata that matplotlib would write.
_METADATA_KEYS = ("Creator", "Date", "Format", "Type")
# Up to so many points get markers; up to half as many x values get a tick each.
FEW = 12


@dataclass(frozen=True)
class Line:
    """Points (x, y), with a legend entry if it has a label.

    Attributes:
        std: ± of each y.
        single: the single values whose means are the points, if there are several per point.
        paper: points of the paper.
    """

    label: str
    points: Sequence[tuple[float, float]]
    std: Sequence[float] = ()
    single: Sequence[tuple[float, float]] = ()
    paper: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Chart:
    """A drawn chart.

    Attributes:
        description: for screen readers.
        note: the text below it.
        legend: the label of each labelled line, and the index of its colour on the page.
    """

    title: str
    svg: Markup
    description: str
    note: str
    legend: Sequence[tuple[str, int]]


def draw_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    description: str,
    note: str = "",
    ticks: Sequence[str] = (),
    joined: bool = True,
    size: tuple[float, float] = (3.3, 1.9),
    y_limits: tuple[float, float] | None = None,
) -> Chart:
    """A chart of lines; without labels, all lines have the same colour.

    Args:
        ticks: names of x = 0, 1, …, if x is categorical: the chart then has grouped bars.
        joined: whether points are joined by a line.
        size: in inches.
        y_limits: the range of the y axis; by default that of the lines.
    """
    labelled = any(line.label for line in lines)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title + description}):
        figure = Figure(figsize=size)
        axes = figure.add_axes((0.13, 0.2, 0.85, 0.76))
        for index, line in enumerate(lines):
            colour = LINES[index % len(LINES) if labelled else 0]
            if ticks:
                width = 0.8 / len(lines)
                offset = width * (index - (len(lines) - 1) / 2)
                _draw_bars(axes, line, colour, width, offset)
            else:
                offset = 0.0
                # Dashes keep an identical earlier line visible.
                covers = any(earlier.points == line.points for earlier in lines[:index])
                style = ("--" if covers else "-") if joined else "none"
                _draw_line(axes, line, colour, style=style, strong=labelled or len(lines) == 1)
            _draw_markers(axes, line, colour, offset)
        _style_axes(axes, x_label, ticks, sorted({x for line in lines for x, _ in line.points}))
        if y_limits is not None:
            axes.set_ylim(*y_limits)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA_KEYS))
    legend = [(line.label, n % len(LINES)) for n, line in enumerate(lines) if line.label]
    return Chart(title, _inline(file.getvalue()), description, note, legend)


def _draw_line(axes: Axes, line: Line, colour: str, *, style: str, strong: bool) -> None:
    if not line.points:
        return
    x, y = zip(*line.points, strict=True)
    marked = style == "none" or len(x) <= FEW
    axes.plot(
        x, y, color=colour, linewidth=1.4 if strong else 0.9, alpha=1 if strong else 0.5,
        linestyle=style, marker="o" if marked else "", markersize=3.5,
    )  # fmt: skip
    if any(line.std):
        axes.errorbar(x, y, yerr=line.std, color=colour, linestyle="none", capsize=2)


def _draw_bars(axes: Axes, line: Line, colour: str, width: float, offset: float) -> None:
    x = [tick + offset for tick, _ in line.points]
    std = line.std if any(line.std) else None
    axes.bar(
        x, [y for _, y in line.points], width=0.9 * width, color=colour, yerr=std, ecolor=INK,
        capsize=2,
    )  # fmt: skip


def _draw_markers(axes: Axes, line: Line, colour: str, offset: float) -> None:
    """Single values as dots, the paper's as diamonds in the line's colour."""
    markers = ((line.single, ".", 3.0, INK), (line.paper, "D", 5.0, colour))
    for points, marker, size, edge in markers:
        axes.plot(
            [x + offset for x, _ in points], [y for _, y in points], linestyle="none",
            marker=marker, markersize=size, markeredgewidth=1.2, markeredgecolor=edge,
            color="none" if marker == "D" else edge, zorder=3,
        )  # fmt: skip


def _style_axes(axes: Axes, x_label: str, ticks: Sequence[str], xs: Sequence[float]) -> None:
    axes.tick_params(labelsize=8, colors=INK, length=3)
    axes.set_xlabel(x_label, fontsize=8, color=INK, parse_math=False, labelpad=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if ticks:
        axes.set_xticks(range(len(ticks)), ticks, parse_math=False)
        axes.set_xlim(-0.6, len(ticks) - 0.4)
        return
    if 0 < len(xs) <= FEW / 2:
        axes.set_xticks(xs, [f"{x:g}" for x in xs])
    else:
        are_integers = all(float(x).is_integer() for x in xs)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=are_integers))


def _inline(svg: str) -> Markup:
    """The SVG for use inside HTML: no head, namespaces or fixed size, the page's colours.

    matplotlib escapes all text; colours are replaced inside style attributes only.
    """
    head, rest = _HEAD.sub("<svg ", _METADATA.sub("", svg), count=1).split(">", 1)
    head = _SIZE.sub("", _NAMESPACES.sub("", head))
    rest = _GROUP.sub("<g", _STYLE.sub(_with_page_colours, _SHEET.sub("", rest)))
    return Markup(f'{head} aria-hidden="true" focusable="false">{rest}')


def _with_page_colours(style: re.Match[str]) -> str:
    text = _FONT.sub("", style[0])
    for placeholder, colour in _PAGE_COLOURS.items():
        text = text.replace(placeholder, colour)
    return text
