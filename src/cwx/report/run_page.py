"""One self-contained page for a run: pictures, numbers, curves, tables and provenance."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cwx.report.figures import plates
from cwx.report.image_grid import wall_of_run
from cwx.report.metric_cards import cards
from cwx.report.paper_tables import beside_paper
from cwx.report.render import render, when
from cwx.report.run import Run, read_run
from cwx.report.tables import of_metrics, ordered
from cwx.report.traces_page import PAGE as TRACES
from cwx.report.traces_page import TABLE as TRACED
from cwx.report.traces_page import write_traces
from cwx.report.training_curves import draw, read_curves
from cwx.storage.atomic import write_text
from cwx.storage.run_files import EXPLANATIONS, SAMPLES, TRACEBACK

log = logging.getLogger(__name__)

PAGE = "report.html"
# How much of its log a run shows that did not finish.
LINES = 15
LAST_GOOD = "last-good-*.safetensors"
# How the end of a long traceback, which says most, is cut.
TRACED_TO = 20_000
# Of pages beside it.
PAGES = {TRACES: "what single predictions rest on"}


def write_page(folder: Path) -> Path:
    """Write ``report.html`` for the run in `folder`, from what the run left there.

    Traces of single predictions have a page beside it. Text from the run (class names, settings)
    is escaped; the page loads nothing. What is missing or damaged is named on the page.

    Raises:
        ValueError: the folder is not a run.
    """
    run = read_run(folder)
    run.tried(TRACED, lambda: write_traces(folder, title=str(run.status.get("experiment", ""))))
    wall = wall_of_run(run)
    curves = run.tried("logs", lambda: draw(read_curves(folder))) or []
    figures = plates(run)
    text = render(
        "run.html.j2",
        title=str(run.status.get("experiment") or folder.name),
        run=run,
        cards=cards(run),
        wall=wall,
        paper=beside_paper(run.metrics, run.paper),
        metrics=of_metrics(run.metrics, run.paper) if run.metrics else None,
        curves=curves,
        tables=ordered(run.tables()),
        figures=figures,
        # Where nothing is explained, figures are what there is to see.
        figures_first=bool(figures) and not run.explains,
        log=[] if run.state == "finished" else run.last_lines(LINES),
        traceback=run.text(TRACEBACK)[-TRACED_TO:] if run.state == "failed" else "",
        facts=facts(run),
        configuration=run.text(".hydra/config.yaml"),
        overrides=run.text(".hydra/overrides.yaml"),
        pages={name: PAGES.get(name, "") for name in _pages(folder)},
        files=_files(folder),
        lacking=list(_lacking(run, pictures=wall is not None, curves=bool(curves))),
    )
    write_text(folder / PAGE, text)
    return folder / PAGE


def facts(run: Run) -> dict[str, str]:
    """Where the numbers come from, without what is not known."""
    status = run.status
    versions = status.get("versions")
    named = {"python": status.get("python"), **(versions if isinstance(versions, Mapping) else {})}
    told = {
        "command": status.get("command"),
        "commit": status.get("commit") or "not a checkout",
        "started": when(status.get("started")),
        "seeds": _seeds(run.settings),
        "hardware": _joined([status.get("processor"), *_list(status.get("gpus"))]),
        "versions": _joined(f"{name} {number}" for name, number in named.items() if number),
    }
    return {name: str(value) for name, value in told.items() if value}


def _seeds(settings: Mapping[str, Any]) -> str:
    experts = settings.get("experts")
    given = experts if isinstance(experts, Mapping) else {}
    early = given.get("early")
    parts = {
        "study": settings.get("seed"),
        "explained": given.get("seeds"),
        "early": early.get("seeds") if isinstance(early, Mapping) else None,
        "held out": given.get("held_out"),
        "purified": given.get("purified"),
    }
    return " · ".join(
        f"{name} {_joined(value) if isinstance(value, list) else value}"
        for name, value in parts.items()
        if value not in (None, [])
    )


def _pages(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*.html") if file.name != PAGE)


def _files(folder: Path) -> list[tuple[str, int]]:
    patterns = ("*.json", "*.log", "*.txt", "*.safetensors", "tables/*.csv", "figures/*.png")
    found = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    return [(file.relative_to(folder).as_posix(), file.stat().st_size) for file in found]


def _lacking(run: Run, *, pictures: bool, curves: bool) -> Iterable[str]:
    """What a reader would look for in vain."""
    left = (run.folder / EXPLANATIONS).exists() or any(run.folder.glob(LAST_GOOD))
    if run.explains and run.settings and not left:
        yield "no explanations: no method has finished"
    elif run.explains and not pictures:
        yield "no pictures"
    elif pictures and not (run.folder / SAMPLES).exists():
        yield "no real images: the run was made before runs kept some"
    if not run.metrics:
        yield "no numbers: nothing was measured"
    if not curves:
        yield "no curves: logger=[csv] was not chosen, or there were too few steps to log"
    if not run.settings:
        yield "no configuration"


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _joined(parts: Iterable[Any]) -> str:
    return ", ".join(str(part) for part in parts if part not in (None, ""))
