"""One page for several runs: links to the page of each."""

import html
import os
from collections.abc import Sequence
from pathlib import Path

from cwx.files import write_text
from cwx.report.page import PAGE, write_page
from cwx.runs import find_runs, is_run


def write_report(folders: Sequence[Path], out: Path | None) -> Path:
    """Write a page of the runs in or below `folders`.

    Args:
        out: the page; by default ``report.html`` in the folder, or in the current one of several.
    """
    if len(folders) == 1 and out is None and is_run(folders[0]):
        return write_page(folders[0])
    place = out or (folders[0] / PAGE if len(folders) == 1 else Path(PAGE))
    pages = [write_page(run.folder) for folder in folders for run in find_runs(folder)]
    links = (html.escape(os.path.relpath(page, place.parent), quote=True) for page in pages)
    items = "".join(f'<li><a href="{link}">{link}</a></li>' for link in links)
    write_text(place, f"<!doctype html><meta charset=utf-8><title>runs</title><ul>{items}</ul>")
    return place
