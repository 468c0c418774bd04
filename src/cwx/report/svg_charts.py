"""Line charts as SVG that takes a page's colours, in light and in dark."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Colours that no chart has otherwise; the page's take their place.
INK = "#010203"
LINES = tuple(f"#0102{n:02x}" for n in range(0x10, 0x18))
_OURS = {INK: "currentColor"} | {c: f"var(--line-{n})" for n, c in enumerate(LINES)}
_HEAD = re.compile(r"\A.*?<svg ", re.DOTALL)
_NAMESPACES = re.compile(r' (?:xmlns(?::\w+)?|version)="[^"]*"')
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_SIZE = re.compile(r'(?<= )(?:width|height)="[\d.]+pt" ?')
_STYLE = re.compile(r'style="[^"]*"')
# A style sheet would reach beyond the chart, and names of groups are those of every other chart.
_SHEET = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)
_GROUP = re.compile(r'<g id="[^"]*"')
_FONT = re.compile(r"font-family: [^;]*; ")
# What matplotlib would say about itself.
_SAYS_NOTHING = ("Creator", "Date", "Format", "Type")
# With so few points or places, each has a mark or a tick of its own.
FEW = 12


@dataclass(frozen=True)
class Line:
    """Points (x, y), told apart by a label if it has one.

    Attributes:
        spread: ± of each y.
        single: what each y is the mean of, if of several.
        paper: points that a paper reports.
    """

    label: str
    points: Sequence[tuple[float, float]]
    spread: Sequence[float] = ()
    single: Sequence[tuple[float, float]] = ()
    paper: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Chart:
    """A drawn chart.

    Attributes:
        says: for those who do not see it.
        note: below it, for all.
        legend: the lines that have a name, and which of the page's line colours they have.
    """

    title: str
    svg: Markup
    says: str
    note: str
    legend: Sequence[tuple[str, int]]


def drawn(
    title: str,
    lines: Sequence[Line],
    *,
    across: str,
    says: str,
    note: str = "",
    ticks: Sequence[str] = (),
    joined: bool = True,
    size: tuple[float, float] = (3.3, 1.9),
) -> Chart:
    """A chart of lines; without labels they are one crowd, of one colour.

    Args:
        across: what the x axis is.
        ticks: names of x = 0, 1, …, if they are no numbers: bars then stand side by side there.
        joined: whether a line leads from point to point.
        size: in inches.
    """
    labelled = any(line.label for line in lines)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title + says}):
        figure = Figure(figsize=size)
        axes = figure.add_axes((0.13, 0.2, 0.85, 0.76))
        for place, line in enumerate(lines):
            colour = LINES[place % len(LINES) if labelled else 0]
            if ticks:
                width = 0.8 / len(lines)
                aside = width * (place - (len(lines) - 1) / 2)
                _stand(axes, line, colour, width, aside)
            else:
                aside = 0.0
                # Over one that is the same, only dashes let both be seen.
                over = any(earlier.points == line.points for earlier in lines[:place])
                style = ("--" if over else "-") if joined else "none"
                _lead(axes, line, colour, style=style, alone=labelled or len(lines) == 1)
            _mark(axes, line, colour, aside)
        _dress(axes, across, ticks, sorted({x for line in lines for x, _ in line.points}))
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(_SAYS_NOTHING))
    legend = [(line.label, n % len(LINES)) for n, line in enumerate(lines) if line.label]
    return Chart(title, _inline(file.getvalue()), says, note, legend)


def _lead(axes: Axes, line: Line, colour: str, *, style: str, alone: bool) -> None:
    if not line.points:
        return
    x, y = zip(*line.points, strict=True)
    marked = style == "none" or len(x) <= FEW
    axes.plot(
        x, y, color=colour, linewidth=1.4 if alone else 0.9, alpha=1 if alone else 0.5,
        linestyle=style, marker="o" if marked else "", markersize=3.5,
    )  # fmt: skip
    if any(line.spread):
        axes.errorbar(x, y, yerr=line.spread, color=colour, linestyle="none", capsize=2)


def _stand(axes: Axes, line: Line, colour: str, width: float, aside: float) -> None:
    x = [at + aside for at, _ in line.points]
    spread = line.spread if any(line.spread) else None
    axes.bar(
        x, [y for _, y in line.points], width=0.9 * width, color=colour, yerr=spread, ecolor=INK,
        capsize=2,
    )  # fmt: skip


def _mark(axes: Axes, line: Line, colour: str, aside: float) -> None:
    """Single values as dots, what a paper reports as diamonds of the same colour."""
    marks = ((line.single, ".", 3.0, INK), (line.paper, "D", 5.0, colour))
    for points, marker, size, edge in marks:
        axes.plot(
            [x + aside for x, _ in points], [y for _, y in points], linestyle="none",
            marker=marker, markersize=size, markeredgewidth=1.2, markeredgecolor=edge,
            color="none" if marker == "D" else edge, zorder=3,
        )  # fmt: skip


def _dress(axes: Axes, across: str, ticks: Sequence[str], places: Sequence[float]) -> None:
    axes.tick_params(labelsize=8, colors=INK, length=3)
    axes.set_xlabel(across, fontsize=8, color=INK, parse_math=False, labelpad=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if ticks:
        axes.set_xticks(range(len(ticks)), ticks, parse_math=False)
        axes.set_xlim(-0.6, len(ticks) - 0.4)
        return
    if 0 < len(places) <= FEW / 2:
        axes.set_xticks(places, [f"{place:g}" for place in places])
    else:
        whole = all(float(place).is_integer() for place in places)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=whole))


def _inline(svg: str) -> Markup:
    """An SVG to stand inside HTML: no head, no namespaces, no fixed size, the page's colours.

    matplotlib escapes all text; colours are replaced in its own styles alone.
    """
    head, rest = _HEAD.sub("<svg ", _METADATA.sub("", svg), count=1).split(">", 1)
    head = _SIZE.sub("", _NAMESPACES.sub("", head))
    rest = _GROUP.sub("<g", _STYLE.sub(_recoloured, _SHEET.sub("", rest)))
    return Markup(f'{head} aria-hidden="true" focusable="false">{rest}')


def _recoloured(style: re.Match[str]) -> str:
    text = _FONT.sub("", style[0])
    for colour, ours in _OURS.items():
        text = text.replace(colour, ours)
    return text
