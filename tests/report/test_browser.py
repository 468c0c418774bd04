"""Pages in a real browser, if one is installed."""

import pytest
from support.browser import NEEDED, load, run_script
from support.html_pages import read
from support.run_folders import make_explanations, make_full_run

from cwx.report.run_page import write_page
from cwx.report.sweep_page import write_report

pytestmark = NEEDED

HOSTILE = '<img src=x onerror="document.title=1">'


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    rows = [{"class": f"c{n}", "value": v} for n, v in enumerate((0.5, 10, -2, 0.25))]
    rows += [{"class": f"c{n}", "value": ""} for n in range(4, 10)]
    return make_full_run(
        tmp_path_factory.mktemp("runs") / "one",
        classes=("cat", "dog", HOSTILE),
        metrics={"accuracy/expert/clean": 0.5},
        tables={"t": rows},
        sources={"distill": make_explanations(("cat", "dog", HOSTILE))},
    )


def test_the_policy_blocks_nothing_of_the_page_and_runs_no_text_of_the_run(run, profile):
    dom, errors = load(write_page(run), profile)
    assert errors == []
    assert 'data-ready="yes"' in dom
    assert dom.count("<img") == len(read(write_page(run).read_text()).all("img"))
    assert "<title>1</title>" not in dom


READER = """
    const all = (selector, within = document) => [...within.querySelectorAll(selector)];
    const title = () => document.getElementById("zoom-title").textContent;
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
    const result = {};
    head.querySelector("button").click();
    result.first = [head.getAttribute("aria-sort"), ...column().slice(0, 5)];
    head.querySelector("button").click();
    result.second = [head.getAttribute("aria-sort"), ...column().slice(0, 5)];
    table.tHead.rows[0].cells[0].querySelector("button").click();
    result.other = [head.getAttribute("aria-sort"), column()[1]];
    type(table.closest(".table").querySelector("[data-filter]"), "c1");
    result.left = all("tbody tr", table).filter((row) => !row.hidden).length;
    result.count = table.closest(".table").querySelector(".match-count").textContent;
    return result;
"""


def test_tables_sort_and_filter(run, profile):
    result = run_script(write_page(run), READER + TABLE, profile)
    assert result == {
        "first": ["descending", "10", "0.5", "0.25", "-2", ""],
        "second": ["ascending", "-2", "0.25", "0.5", "10", ""],
        "other": [None, "10"],
        "left": 1,
        "count": "1 of 10",
    }


ZOOM = """
    const result = {}, grid = document.querySelector(".image-grid");
    const zoom = document.getElementById("zoom");
    result.stops = all('.thumb[tabindex="0"]', grid).length;
    grid.querySelector(".thumb").focus();
    press("ArrowRight"); press("ArrowDown");
    result.moved = document.activeElement.querySelector("img").alt;
    document.activeElement.click();
    result.opened = [zoom.open, title(), document.getElementById("zoom-image").alt];
    result.row = all(".zoom-row .thumb").length;
    press("ArrowLeft"); result.left = title();
    press("ArrowUp"); result.up = title();
    press("ArrowLeft"); result.edge = title();
    press("s"); result.smooth = document.documentElement.classList.contains("smooth");
    zoom.close();
    return result;
"""


def test_images_are_reached_and_enlarged_by_keyboard(run, profile):
    result = run_script(write_page(run), READER + ZOOM, profile)
    assert result == {
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
    const result = {}, grid = document.querySelector(".image-grid");
    const root = document.documentElement;
    const visible = () => all(".thumb", grid).filter((it) => it.offsetParent !== null)
        .map((it) => it.querySelector("img").alt);
    result.first = visible();
    const inputs = all("[data-choose] input", grid);
    inputs[1].checked = true;
    inputs[1].dispatchEvent(new Event("change", { bubbles: true }));
    result.second = visible();
    const perClass = grid.querySelector("[data-per-class]");
    perClass.value = "1";
    perClass.dispatchEvent(new Event("change", { bubbles: true }));
    result.one = visible().length;
    document.getElementById("theme").click();
    result.dark = [root.dataset.theme, getComputedStyle(document.body).backgroundColor];
    return result;
"""


def test_a_sweep_shows_one_source_at_a_time_and_has_a_dark_theme(tmp_path, profile):
    for job in range(2):
        make_full_run(
            tmp_path / str(job), classes=("cat",), overrides=[f"a={job}"], settings={"a": job},
            sources={"distill": make_explanations(("cat",))},
        )  # fmt: skip
    result = run_script(write_report([tmp_path]), READER + CHOICES, profile)
    real = ["cat: real images 1 of 4", "cat: real images 2 of 4"]
    assert result["first"] == [
        *real, *(f"cat: distill {n} of 2, a {job}" for job in range(2) for n in (1, 2)),
    ]  # fmt: skip
    assert result["second"] == [
        *real, *(f"cat: training images {n} of 4, a {job}" for job in range(2) for n in (1, 2)),
    ]  # fmt: skip
    assert result["one"] == 3
    assert result["dark"] == ["dark", "rgb(16, 18, 22)"]


def test_hundreds_of_images_are_on_the_page(tmp_path, profile):
    classes = tuple(f"class {n}" for n in range(30))
    explanations = make_explanations(classes, per_class=10)
    folder = make_full_run(tmp_path / "run", classes=classes, sources={"distill": explanations})
    dom, errors = load(write_page(folder), profile)
    assert errors == []
    assert dom.count('alt="class 7: distill') == 10


PHONE = """
    all("details").forEach((it) => { it.open = true; });
    const root = document.documentElement;
    const wide = all("body *").filter((it) => it.getBoundingClientRect().right > innerWidth + 1
        && !it.closest(".scroll, .across, pre, nav, .sr, dialog"));
    const names = wide.map((it) => it.outerHTML.slice(0, 80));
    return [innerWidth, root.scrollWidth - root.clientWidth, names];
"""


def test_no_element_exceeds_the_width_of_a_phone(tmp_path, profile):
    evaluation_networks = ("expert", "fine-tuned", "held-out", "wide_resnet28_10", "vgg16")
    metrics = {
        f"accuracy/{name}/{a}": 0.5 for name in evaluation_networks for a in ("fgs_1", "pgd")
    }
    rows = [dict.fromkeys("abcdefghijklmnopqrstuvwxyz", 0.5)]
    settings = {"method": {"distill": {"rate": "x" * 300}}}
    one = make_full_run(tmp_path / "0", metrics=metrics, tables={"t": rows}, settings=settings)
    make_full_run(tmp_path / "1", error=ValueError("x" * 1000), overrides=["seed=1"])
    for page in (write_page(one), write_page(tmp_path / "1"), write_report([tmp_path])):
        assert run_script(page, READER + PHONE, profile, width=390) == [390, 0, []]
