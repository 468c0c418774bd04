"""`cwx report`: a page of one run, of a sweep or of any set of runs."""

from collections.abc import Sequence
from pathlib import Path

from cwx.cli.parser import Parser, called, existing_folder
from cwx.cli.tables import plain, say
from cwx.errors import UserError
from cwx.storage.runs import find_runs


def parser() -> Parser:
    name = f"{called()} report"
    parsed = Parser(
        "report",
        does="Write one self-contained page of a run, of a sweep, or of any runs side by side.",
        examples=f"""  {name} runs/digits/quickstart/2026-11-21_10-06-09
  {name} runs/cifar10/noise/2026-11-21_11-00-00             a sweep: a grid over what it varies
  {name} runs/cifar10/natural runs/cifar10/adversarial --out side-by-side.html""",
    )
    parsed.add_argument(
        "folder", nargs="+", help="of a run, of a sweep, or above runs, which are all taken"
    )
    parsed.add_argument(
        "--out", metavar="FILE", help="the page (report.html in the folder, or here for several)"
    )
    return parsed


def main(argv: Sequence[str]) -> None:
    """Write the page and say where it is.

    Raises:
        UserError: a folder is not there or has no run, or the page would be a folder.
    """
    asked = parser().parse_intermixed_args(argv)
    folders = [existing_folder(folder) for folder in asked.folder]
    for folder in folders:
        if not find_runs(folder):
            raise UserError(
                f"{plain(folder)} holds no run: name a folder with a status.json, or one above "
                f"such folders ({called()} ls shows them)"
            )
    out = None if asked.out is None else _page(asked.out)
    # Charts and tensors take seconds to import, which help does not need.
    from cwx.report.sweep_page import write_report

    say(f"the page is {plain(write_report(folders, out))}")


def _page(given: str) -> Path:
    out = Path(given)
    if out.is_dir():
        raise UserError(f"--out {plain(given)} is a folder: name a file in it")
    return out
