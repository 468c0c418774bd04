"""`cwx report`: writes an HTML page of a run, of a sweep or of several runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cwx.cli.parser import Parser, existing_directory, program_name
from cwx.cli.tables import print_remark, print_text
from cwx.errors import UserError, printable
from cwx.storage.run_folders import walk

# Unreadable folders in the line about them.
_MAX_NAMED = 10


def parser() -> Parser:
    name = f"{program_name()} report"
    arguments = Parser(
        "report",
        does="Write a self-contained page of a run, of a sweep, or of several runs.",
        examples=f"""  {name} runs/digits/quickstart/2026-11-21_10-06-09
  {name} runs/cifar10/noise/2026-11-21_11-00-00             a sweep: a grid over its varied settings
  {name} runs/cifar10/natural runs/cifar10/adversarial --out side-by-side.html""",
    )
    arguments.add_argument(
        "folder",
        nargs="+",
        help="of a run, of a sweep, or a folder above runs, which are all shown",
    )
    arguments.add_argument(
        "--out", metavar="FILE", help="the page (report.html in the folder, or here for several)"
    )
    return arguments


def main(argv: Sequence[str]) -> None:
    """Write the page and print its path; folders that cannot be read are named.

    Raises:
        UserError: a folder does not exist or holds no run, or ``--out`` is a folder.
    """
    arguments = parser().parse_intermixed_args(argv)
    folders = [existing_directory(folder) for folder in arguments.folder]
    paths = {folder: dict(walk(folder, nested=True)) for folder in folders}
    faults = {p: fault for inside in paths.values() for p, fault in inside.items() if fault}
    for folder, inside in paths.items():
        if not inside or not any(None in others.values() for others in paths.values()):
            raise UserError(
                f"{printable(folder)} holds no run{_that_can_be_read(faults)}: name a folder "
                f"with a status.json, or one above such folders ({program_name()} ls shows them)"
            )
    if faults:
        print_remark(f"the page leaves out {_named(faults)}")
    out = None if arguments.out is None else _page(arguments.out)
    # Imports torch and matplotlib, which takes seconds and help does not need.
    from cwx.report.sweep_page import write_report

    print_text(f"the page is {printable(write_report(folders, out))}")


def _that_can_be_read(faults: Mapping[Path, str]) -> str:
    return f" that can be read ({_named(faults)})" if faults else ""


def _named(faults: Mapping[Path, str]) -> str:
    """The folders that cannot be read, with the reason of each."""
    texts = [f"{printable(path)} ({fault})" for path, fault in faults.items()]
    more = f" and {len(texts) - _MAX_NAMED} more" if len(texts) > _MAX_NAMED else ""
    return ", ".join(texts[:_MAX_NAMED]) + more


def _page(name: str) -> Path:
    out = Path(name)
    if out.is_dir():
        raise UserError(f"--out {printable(name)} is a folder: name a file in it")
    return out
