"""Pages in a real browser, where there is one."""

import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from html import escape

import pytest
from support.html_pages import read
from support.made_runs import explanations, made_run

from cwx.report.run_page import write_page
from cwx.report.sweep_page import write_report

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")

HOSTILE = '<img src=x onerror="document.title=1">'


FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
    "--enable-logging=stderr", "--dump-dom",
)  # fmt: skip


def seen(page, profile):
    """The page after its script has run, and what the browser had to say of it."""
    try:
        return _seen(page, profile)
    except subprocess.TimeoutExpired:
        # On a machine that is busy it may hang while it starts.
        return _seen(page, profile)


def _seen(page, profile):
    # Files and a group of its own: pipes stay open while any of its processes lives.
    dom, told = profile / "dom", profile / "told"
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile / 'data'}", page.as_uri()]
    with dom.open("w") as out, told.open("w") as err:
        started = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)
        try:
            assert started.wait(timeout=60) == 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()
    return dom.read_text(), [line for line in told.read_text().splitlines() if "CONSOLE" in line]


def driven(page, script, profile, width=None):
    """What `script` returns when it has done as a reader would, on a screen of that width."""
    text = page.read_text()
    # The page's own policy forbids any script but its own.
    text = re.sub(r"<meta http-equiv[^>]*>", "", text)
    told = (
        "<script>addEventListener('DOMContentLoaded', () => { let told; try { told = (() => {"
        f"{script}}})(); }} catch (error) {{ told = String(error); }}"
        "top.document.documentElement.dataset.told = JSON.stringify(told); });</script>"
    )
    copy = page.with_name("driven.html")
    text = text.replace("</head>", f"{told}</head>")
    if width is not None:
        # No window of the browser's is as narrow as a phone.
        frame = f'style="width:{width}px;height:900px;border:0"'
        text = f'<!doctype html><html><iframe {frame} srcdoc="{escape(text)}"></iframe></html>'
    copy.write_text(text)
    dom, _ = seen(copy, profile)
    return json.loads(read_told(dom))


def read_told(dom):
    return next(element for element in read_loose(dom)).attributes["data-told"]


def read_loose(dom):
    # What Chromium writes out is whole, but for elements that need no end.
    return read(re.sub(r"(?s)^.*?(<html[^>]*>).*$", r"\1</html>", dom)).all("html")


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    rows = [{"class": f"c{n}", "value": v} for n, v in enumerate((0.5, 10, -2, 0.25))]
    rows += [{"class": f"c{n}", "value": ""} for n in range(4, 10)]
    return made_run(
        tmp_path_factory.mktemp("runs") / "one",
        classes=("cat", "dog", HOSTILE),
        metrics={"accuracy/expert/clean": 0.5},
        tables={"t": rows},
        sources={"distill": explanations(("cat", "dog", HOSTILE))},
    )


def test_nothing_is_refused_and_nothing_of_the_run_runs(run, profile):
    dom, complaints = seen(write_page(run), profile)
    assert complaints == []
    assert 'data-ready="yes"' in dom
    assert dom.count("<img") == len(read(write_page(run).read_text()).all("img"))
    assert "<title>1</title>" not in dom


READER = """
    const all = (selector, within = document) => [...within.querySelectorAll(selector)];
    const says = () => document.getElementById("zoom-says").textContent;
    const press = (key) => document.activeElement.dispatchEvent(
        new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    const type = (input, text) => {
        input.value = text;
        input.dispatchEvent(new Event("input", { bubbles: true }));
    };
"""

TABLE = """
    const table = all("table[data-sortable]").find((it) => it.caption.textContent === "T");
    const head = table.tHead.rows[0].cells[1];
    const column = () => all("tbody tr", table).map((row) => row.cells[1].textContent.trim());
    const told = {};
    head.querySelector("button").click();
    told.first = [head.getAttribute("aria-sort"), ...column().slice(0, 5)];
    head.querySelector("button").click();
    told.second = [head.getAttribute("aria-sort"), ...column().slice(0, 5)];
    table.tHead.rows[0].cells[0].querySelector("button").click();
    told.other = [head.getAttribute("aria-sort"), column()[1]];
    type(table.closest(".table").querySelector("[data-filter]"), "c1");
    told.left = all("tbody tr", table).filter((row) => !row.hidden).length;
    told.found = table.closest(".table").querySelector(".found").textContent;
    return told;
"""


def test_tables_sort_and_filter(run, profile):
    told = driven(write_page(run), READER + TABLE, profile)
    assert told == {
        "first": ["descending", "10", "0.5", "0.25", "-2", ""],
        "second": ["ascending", "-2", "0.25", "0.5", "10", ""],
        "other": [None, "10"],
        "left": 1,
        "found": "1 of 10",
    }


ZOOM = """
    const told = {}, wall = document.querySelector(".wall"), zoom = document.getElementById("zoom");
    told.stops = all('.pic[tabindex="0"]', wall).length;
    wall.querySelector(".pic").focus();
    press("ArrowRight"); press("ArrowDown");
    told.moved = document.activeElement.querySelector("img").alt;
    document.activeElement.click();
    told.opened = [zoom.open, says(), document.getElementById("zoom-picture").alt];
    told.row = all(".zoom-row .pic").length;
    press("ArrowLeft"); told.left = says();
    press("ArrowUp"); told.up = says();
    press("ArrowLeft"); told.edge = says();
    press("s"); told.smooth = document.documentElement.classList.contains("smooth");
    zoom.close();
    return told;
"""


def test_pictures_are_reached_and_enlarged_by_keyboard(run, profile):
    told = driven(write_page(run), READER + ZOOM, profile)
    assert told == {
        "stops": 1,
        "moved": "dog: distill 2 of 2",
        "opened": [True, "dog: distill 2 of 2", "dog: distill 2 of 2"],
        "row": 2 + 2 + 2 + 1,
        "left": "dog: distill 1 of 2",
        "up": "cat: distill 1 of 2",
        "edge": "cat: distill 1 of 2",
        "smooth": True,
    }


CHOICES = """
    const told = {}, wall = document.querySelector(".wall"), root = document.documentElement;
    const shown = () => all(".pic", wall).filter((it) => it.offsetParent !== null)
        .map((it) => it.querySelector("img").alt);
    told.first = shown();
    const inputs = all("[data-choose] input", wall);
    inputs[1].checked = true;
    inputs[1].dispatchEvent(new Event("change", { bubbles: true }));
    told.second = shown();
    const most = wall.querySelector("[data-most]");
    most.value = "1";
    most.dispatchEvent(new Event("change", { bubbles: true }));
    told.one = shown().length;
    document.getElementById("theme").click();
    told.dark = [root.dataset.theme, getComputedStyle(document.body).backgroundColor];
    return told;
"""


def test_a_sweep_shows_one_source_at_a_time_and_has_a_dark_side(tmp_path, profile):
    for job in range(2):
        made_run(
            tmp_path / str(job), classes=("cat",), overrides=[f"a={job}"], settings={"a": job},
            sources={"distill": explanations(("cat",))},
        )  # fmt: skip
    told = driven(write_report([tmp_path]), READER + CHOICES, profile)
    real = ["cat: real images 1 of 4", "cat: real images 2 of 4"]
    assert told["first"] == [
        *real, *(f"cat: distill {n} of 2, a {job}" for job in range(2) for n in (1, 2)),
    ]  # fmt: skip
    assert told["second"] == [
        *real, *(f"cat: training images {n} of 4, a {job}" for job in range(2) for n in (1, 2)),
    ]  # fmt: skip
    assert told["one"] == 3
    assert told["dark"] == ["dark", "rgb(16, 18, 22)"]


def test_hundreds_of_pictures_are_on_the_page(tmp_path, profile):
    classes = tuple(f"class {n}" for n in range(30))
    left = explanations(classes, per_class=10)
    folder = made_run(tmp_path / "run", classes=classes, sources={"distill": left})
    dom, complaints = seen(write_page(folder), profile)
    assert complaints == []
    assert dom.count('alt="class 7: distill') == 10


PHONE = """
    all("details").forEach((it) => { it.open = true; });
    const root = document.documentElement;
    const wide = all("body *").filter((it) => it.getBoundingClientRect().right > innerWidth + 1
        && !it.closest(".scroll, .across, pre, nav, .sr, dialog"));
    const names = wide.map((it) => it.outerHTML.slice(0, 80));
    return [innerWidth, root.scrollWidth - root.clientWidth, names];
"""


def test_nothing_sticks_out_on_a_phone(tmp_path, profile):
    evaluation_networks = ("expert", "fine-tuned", "held-out", "wide_resnet28_10", "vgg16")
    metrics = {f"accuracy/{j}/{a}": 0.5 for j in evaluation_networks for a in ("fgs_1", "pgd")}
    rows = [dict.fromkeys("abcdefghijklmnopqrstuvwxyz", 0.5)]
    settings = {"method": {"distill": {"rate": "x" * 300}}}
    one = made_run(tmp_path / "0", metrics=metrics, tables={"t": rows}, settings=settings)
    made_run(tmp_path / "1", error=ValueError("x" * 1000), overrides=["seed=1"])
    for page in (write_page(one), write_page(tmp_path / "1"), write_report([tmp_path])):
        assert driven(page, READER + PHONE, profile, width=390) == [390, 0, []]
