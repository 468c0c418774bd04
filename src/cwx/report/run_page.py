"""The page of a run: images, metrics, curves, tables and provenance in one file."""

import logging
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cwx.report.atlas_page import PAGE as ATLAS_PAGE
from cwx.report.atlas_page import write_atlas
from cwx.report.corruption_line import corruption_line
from cwx.report.figures import run_figures
from cwx.report.headline import headline
from cwx.report.image_grid import run_grid
from cwx.report.metric_cards import metric_cards
from cwx.report.neuron_pairs_page import PAGE as PAIRS_PAGE
from cwx.report.neuron_pairs_page import write_pairs_page
from cwx.report.paper_tables import paper_tables
from cwx.report.render import format_time, render
from cwx.report.run import RunContents, read_run
from cwx.report.tables import metrics_table, ordered_tables
from cwx.report.traces_page import PAGE as TRACES_PAGE
from cwx.report.traces_page import TABLE as TRACES_TABLE
from cwx.report.traces_page import write_traces
from cwx.report.training_curves import curve_charts
from cwx.storage.atomic import write_text
from cwx.storage.continued_training import CONTINUED, is_continued
from cwx.storage.csv_files import CsvTable
from cwx.storage.neuron_pairs import PAIRS
from cwx.storage.run_files import (
    ATLAS,
    CORRUPTION,
    EXPLANATIONS,
    IMAGES,
    METRICS,
    PAPER,
    SAMPLES,
    TRACEBACK,
)

log = logging.getLogger(__name__)

PAGE = "report.html"
# Lines of the log on the page of an unfinished run.
LOG_LINES = 15
LAST_GOOD = "last-good-*.safetensors"
# Characters of a traceback, from its end.
TRACEBACK_LENGTH = 20_000
# Entries of the lists of files, of other pages and of errors, and cards.
MAX_FILES, MAX_PAGES, MAX_ERRORS, MAX_CARDS, MAX_NOTES = 500, 20, 100, 60, 20
# Other pages in the run's folder.
PAGES = {
    TRACES_PAGE: "evidence for single predictions",
    ATLAS_PAGE: "atlas of neurons",
    PAIRS_PAGE: "pairs of neurons, for volunteers",
}


def write_page(folder: Path) -> Path:
    """Write ``report.html`` for the run in `folder`, from the files there.

    Single predictions, the atlas and pairs of neurons have pages of their own. Text from the run
    (class names, settings) is escaped; the page loads nothing. Missing and damaged files are listed
    on the page.

    Raises:
        ValueError: the folder is not a run.
    """
    run = read_run(folder)
    title = str(run.status.get("experiment", ""))
    run.attempt(TRACES_TABLE, lambda: write_traces(run, title=title))
    run.attempt(PAIRS, lambda: write_pairs_page(run))
    run.attempt(ATLAS, lambda: write_atlas(run, title=title))
    grid = run.attempt("images", lambda: run_grid(run))
    curves = run.attempt("logs", lambda: curve_charts(run)) or []
    figures = run.attempt("figures", lambda: run_figures(run)) or []
    facts = run.attempt("the provenance", lambda: provenance(run)) or {}
    contents = run.attempt("tables", run.tables) or {}
    tables = run.attempt("tables", lambda: ordered_tables(contents)) or []
    corruption = _corruption(run, contents)
    paper = run.attempt(PAPER, lambda: paper_tables(run.metrics, run.paper)) or []
    cards = run.attempt(METRICS, lambda: metric_cards(run)) or []
    log = [] if run.state == "finished" else run.last_log_lines(LOG_LINES)
    failed = run.state == "failed"
    configuration, overrides = run.text(".hydra/config.yaml"), run.text(".hydra/overrides.yaml")
    traceback = run.end_of_text(TRACEBACK, TRACEBACK_LENGTH) if failed else ""
    missing = list(_missing_parts(run, has_images=grid is not None, has_curves=bool(curves)))
    # After all readers: they add to the read errors and to what is left out.
    text = render(
        "run.html.j2",
        title=str(run.status.get("experiment") or folder.name),
        headline=run.attempt(METRICS, lambda: headline(run)) or "",
        run=run,
        cards=cards[:MAX_CARDS],
        grid=grid,
        has_image_files=(folder / IMAGES).is_dir(),
        paper=paper,
        metrics=metrics_table(run.metrics, run.paper) if run.metrics else None,
        curves=curves,
        tables=tables,
        corruption=corruption,
        notes=[str(note) for note in _list(run.settings.get("notes"))][:MAX_NOTES],
        continued=CONTINUED if is_continued(run.settings) else "",
        figures=figures,
        # Without explanations, the figures are the main result.
        figures_first=bool(figures) and not run.has_methods,
        log=log,
        traceback=traceback,
        facts=facts,
        configuration=configuration,
        overrides=overrides,
        pages={name: PAGES.get(name, "") for name in _other_pages(folder)},
        files=_files(folder),
        missing=missing,
        errors=_shown_errors(run),
    )
    write_text(folder / PAGE, text)
    return folder / PAGE


def _shown_errors(run: RunContents) -> list[str]:
    """The read errors, each once, at most `MAX_ERRORS`."""
    errors = list(dict.fromkeys(run.read_errors))
    more = len(errors) - MAX_ERRORS
    return errors[:MAX_ERRORS] + ([f"{more} more"] if more > 0 else [])


def provenance(run: RunContents) -> dict[str, str]:
    """Command, commit, time, seeds, hardware and versions; unknown ones are left out."""
    status = run.status
    versions = status.get("versions")
    packages = {
        "python": status.get("python"),
        **(versions if isinstance(versions, Mapping) else {}),
    }
    facts = {
        "command": status.get("command"),
        "commit": status.get("commit") or "not a checkout",
        "started": format_time(status.get("started")),
        "seeds": _seeds(run.settings),
        "hardware": _joined([status.get("processor"), *_list(status.get("gpus"))]),
        "versions": _joined(f"{name} {number}" for name, number in packages.items() if number),
    }
    return {name: str(value) for name, value in facts.items() if value}


def _seeds(settings: Mapping[str, Any]) -> str:
    experts = settings.get("experts")
    experts = experts if isinstance(experts, Mapping) else {}
    early = experts.get("early")
    parts = {
        "study": settings.get("seed"),
        "explained experts": experts.get("seeds"),
        "early experts": early.get("seeds") if isinstance(early, Mapping) else None,
        "held-out experts": experts.get("held_out"),
        "purified": experts.get("purified"),
    }
    return " · ".join(
        f"{name} {_joined(value) if isinstance(value, list) else value}"
        for name, value in parts.items()
        if value not in (None, [])
    )


def _corruption(run: RunContents, tables: Mapping[str, CsvTable]) -> str:
    table = tables.get(Path(CORRUPTION).stem)
    if table is None:
        return ""
    return run.attempt(CORRUPTION, lambda: corruption_line(table.rows[0])) or ""


def _other_pages(folder: Path) -> list[str]:
    pages = sorted(file.name for file in folder.glob("*.html") if file.name != PAGE)
    return pages[:MAX_PAGES]


def _files(folder: Path) -> list[tuple[str, int]]:
    """Paths in the folder, and sizes in bytes."""
    patterns = ("*.json", "*.log", "*.txt", "*.safetensors", "tables/*.csv", "figures/*.png")
    files = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    sizes = [(file.relative_to(folder).as_posix(), file.lstat()) for file in files[:MAX_FILES]]
    return [(name, status.st_size) for name, status in sizes if stat.S_ISREG(status.st_mode)]


def _missing_parts(run: RunContents, *, has_images: bool, has_curves: bool) -> Iterable[str]:
    """The parts of the page that a reader may expect in vain, with the reason."""
    has_output = (run.folder / EXPLANATIONS).exists() or any(run.folder.glob(LAST_GOOD))
    if run.has_methods and run.settings and not has_output:
        yield "no explanations (no method has finished)"
    elif run.has_methods and not has_images:
        yield "no images"
    elif has_images and not (run.folder / SAMPLES).exists():
        yield "no real images (an older version wrote this run)"
    if not run.metrics:
        yield "no metrics (no evaluation has finished)"
    if not has_curves:
        yield "no training curves (logger=[csv] was not chosen, or too few steps were logged)"
    if not run.settings:
        yield "no configuration"


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _joined(parts: Iterable[Any]) -> str:
    return ", ".join(str(part) for part in parts if part not in (None, ""))
