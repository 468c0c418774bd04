"""Every figure that an evaluation writes has a title and a caption on the page."""

import re
from pathlib import Path

import pytest

import cwx.evaluations
from cwx.report.figures import _describe

# ``figures={"name": …}`` and ``figures["name"] = …``, with one name or several.
_NAMES = (
    r'figures(?:: [^=]+)? ?= ?\{f?"([^"]+)"',
    r'figures\[f?"([^"]+)"\]',
    r'figures=\{[^}]*?f?"([a-z_{}]+)":',
)


def figure_names():
    names = set()
    for file in Path(cwx.evaluations.__file__).parent.rglob("*.py"):
        for pattern in _NAMES:
            names |= set(re.findall(pattern, file.read_text(encoding="utf-8")))
    # The page of traces has captions of its own.
    return sorted(name for name in names if not name.startswith("trace_"))


def test_figures_are_recognised_in_the_source():
    assert {"verdict", "verdict_trigger", "confusion", "pattern_examples_{source}"} <= set(
        figure_names()
    )


@pytest.mark.parametrize("name", figure_names())
def test_every_figure_has_a_caption(name):
    _, title, caption = _describe(re.sub(r"\{\w+\}", "iscp", name))
    assert title
    assert "{" not in title
    assert caption.endswith(".")
