"""`cwx ls`: lists runs with their state, settings and metrics."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from typing import Any

from cwx.cli.commands.run_filters import select_runs, undecided_runs
from cwx.cli.parser import Parser, existing_directory, program_name, suggestion
from cwx.cli.tables import Cell, local_time, print_remark, print_text, table
from cwx.errors import UserError, printable
from cwx.storage.quantities import duration
from cwx.storage.runs import STATES, Run, count_waiting_jobs, find_runs, sweep_damage

# The default columns: of each group of names, the first that any run has.
_MAIN = (
    ("accuracy/expert/clean", "accuracy/expert", "attack_success/expert/accuracy"),
    ("fidelity/ratio", "fidelity/seen/ratio"),
    ("attack_success/expert/success", "construction/*/made"),
    ("discriminative/distill/expert", "discriminative/*/expert"),
    (
        "predictive_power/power/iscp/0.05",
        "predictive_power/power/*/0.05",
        "predictive_power/power/*/*",
    ),
)
# Damaged runs in the line about them.
_MAX_NAMED = 10
_SORTS = ("when", "experiment", "state", "time", "folder")


def parser() -> Parser:
    name = f"{program_name()} ls"
    arguments = Parser(
        "ls",
        does="List runs, newest first, with the jobs of a sweep together.",
        examples=f"""  {name}                                     all runs below runs/
  {name} runs/cifar10 --state failed,lost
  {name} --experiment 'cifar10/*' --metric fidelity/ratio --metric 'predictive_power/power/*'
  {name} corruption=badnets 'corruption.rate=0.2*' --sort fidelity/ratio
  {name} --json | jq '.[] | select(.state == "lost") | .folder'

A run is "lost" if its status is running but its process has ended: continue it with
  {program_name()} resume=<folder>""",
    )
    arguments.add_argument(
        "what",
        nargs="*",
        metavar="folder | key=value",
        help="folders to search (runs), and settings or choices that runs must have; * matches "
        "anything, a comma means or",
    )
    arguments.add_argument("--experiment", metavar="NAME", help="of this name; * matches anything")
    arguments.add_argument("--state", metavar="STATE", help=f"one or more of {', '.join(STATES)}")
    arguments.add_argument(
        "--metric", action="append", metavar="NAME", help="metrics to show; * matches anything"
    )
    arguments.add_argument(
        "--sort", default="when", metavar="BY", help=f"one of {', '.join(_SORTS)}, or a metric"
    )
    arguments.add_argument("--reverse", action="store_true", help="in reverse order")
    arguments.add_argument("--json", action="store_true", help="as JSON, for programs")
    return arguments


def main(argv: Sequence[str]) -> None:
    """List runs.

    Raises:
        UserError: an invalid argument, or no such folder, setting or metric.
    """
    arguments = parser().parse_intermixed_args(argv)
    filters = [word for word in arguments.what if "=" in word and not Path(word).is_dir()]
    folders = [word for word in arguments.what if word not in filters]
    all_runs = [run for folder in _folders(folders) for run in find_runs(folder)]
    experiment, states = arguments.experiment, arguments.state
    undecided = undecided_runs(all_runs, filters, experiment=experiment, states=states)
    if undecided:
        print_remark(_undecided_line(undecided))
    runs = select_runs(all_runs, filters, experiment=experiment, states=states)
    runs = _sort(runs, by=arguments.sort, reverse=arguments.reverse)
    if arguments.json:
        print_text(json.dumps([_as_json(run) for run in runs], indent=2))
    elif not all_runs:
        where = ", ".join(map(printable, folders)) or "runs"
        print_text(
            f"no runs in {where} yet: start one with {program_name()} experiment=digits/quickstart"
        )
    elif not runs:
        print_text(f"none of {len(all_runs)} runs matches")
    else:
        columns = _columns(runs, arguments.metric)
        print_text(_as_table(runs, columns, fixed=arguments.metric is not None))


def _undecided_line(damage: Mapping[Path, str]) -> str:
    """One line about the runs that are left out because of damage."""
    runs = [f"{printable(folder)} ({fault})" for folder, fault in damage.items()]
    more = f" and {len(runs) - _MAX_NAMED} more" if len(runs) > _MAX_NAMED else ""
    count = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    return f"{count} may match, but cannot be read: {', '.join(runs[:_MAX_NAMED])}{more}"


def _folders(names: Sequence[str]) -> list[Path]:
    if names:
        return [existing_directory(name) for name in names]
    # The default folder need not exist yet.
    return [Path("runs")] if Path("runs").is_dir() else []


def _sort(runs: list[Run], *, by: str, reverse: bool) -> list[Run]:
    """Sorted runs; the jobs of a sweep stand together, at the position of the first."""
    keys: dict[str, Callable[[Run], Any]] = {
        "when": lambda run: run.started,
        "experiment": lambda run: run.experiment,
        "state": lambda run: STATES.index(run.state),
        "time": lambda run: run.seconds or 0.0,
        "folder": lambda run: _natural(str(run.folder)),
    }
    measured = {name for run in runs for name in run.metrics}
    if by not in keys and runs and by not in measured:
        raise UserError(
            f"there is no {printable(by)} to sort by: {suggestion(by, [*keys, *measured])}"
        )
    # Runs without the metric come last, in either order.
    key = keys.get(by, lambda run: run.metrics.get(by, 0.0))
    without = [run for run in runs if by not in keys and by not in run.metrics]
    ordered = [run for run in runs if run not in without]
    ordered.sort(key=keys["folder"])
    # The default order is newest first.
    ordered.sort(key=key, reverse=reverse != (by == "when"))
    groups: dict[Path, list[Run]] = {}
    for run in [*ordered, *without]:
        groups.setdefault(_group(run), []).append(run)
    if by == "when":
        # Jobs in the order of their numbers.
        for jobs in groups.values():
            jobs.sort(key=keys["folder"], reverse=reverse)
    return [run for jobs in groups.values() for run in jobs]


def _natural(text: str) -> list[tuple[int, str]]:
    """A sort key by which job 10 comes after job 9."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)
    ]


def _group(run: Run) -> Path:
    return (run.sweep or run.folder).absolute()


def _columns(runs: Sequence[Run], patterns: Sequence[str] | None) -> list[str]:
    """The metrics to show: those that match `patterns`, or the default ones.

    Raises:
        UserError: no run has a metric that matches a pattern.
    """
    measured = {name: None for run in runs for name in run.metrics}
    if patterns is None:
        defaults = (_first(group, measured) for group in _MAIN)
        return [name for name in defaults if name is not None]
    columns: dict[str, None] = {}
    for pattern in patterns:
        names = [name for name in measured if fnmatchcase(name, pattern)]
        if not names and measured:
            raise UserError(
                f"no run has a metric {printable(pattern)}: {suggestion(pattern, measured)}"
            )
        columns |= dict.fromkeys(names)
    return list(columns)


def _first(patterns: Iterable[str], names: Iterable[str]) -> str | None:
    known = list(names)
    matches = (name for pattern in patterns for name in known if fnmatchcase(name, pattern))
    return next(matches, None)


def _as_table(runs: Sequence[Run], columns: Sequence[str], *, fixed: bool) -> str:
    """A table; columns that are not `fixed` are left out of a narrow terminal."""
    rows: list[list[Cell]] = []
    for _, members in groupby(runs, key=_group):
        jobs = list(members)
        if sweep := jobs[0].sweep:
            states = Counter(run.state for run in jobs)
            if left := count_waiting_jobs(sweep):
                states["not begun"] = left
            counts = ", ".join(f"{count} {state}" for state, count in states.items())
            summary = " ".join([counts, *(f"({fault})" for fault in sweep_damage(sweep))])
            rows.append([str(sweep), "", "", "", "", *[None] * len(columns), summary])
        rows += [_row(run, columns) for run in jobs]
    header = ["run", "experiment", "started", "state", "time", *columns, "settings"]
    first = len(header) - len(columns) - 1
    spare = () if fixed else range(len(header) - 2, first - 1, -1)
    return table(header, rows, shrink=len(header) - 1, spare=spare)


def _row(run: Run, columns: Sequence[str]) -> list[Cell]:
    return [
        f"  {run.folder.relative_to(run.sweep)}" if run.sweep else str(run.folder),
        run.experiment,
        local_time(run.started),
        run.state,
        duration(_elapsed(run)),
        *(run.metrics.get(name) for name in columns),
        _settings(run),
    ]


def _settings(run: Run) -> str:
    """Why the run has not finished, what is damaged, and its settings.

    The settings come last, for a narrow terminal cuts off the end.
    """
    # The experiment has its own column.
    words = [override for override in run.swept if not override.startswith("experiment=")]
    reason = _text(run, "reason")
    remarks = [*([reason] if reason else []), *run.damage]
    return " ".join([*(f"({remark})" for remark in remarks), *words])


def _text(run: Run, field: str) -> str | None:
    """A text in the run's status; ``None`` if it is no text."""
    value = run.status.get(field)
    return value if isinstance(value, str) else None


def _elapsed(run: Run) -> float | None:
    if run.state == "running":
        return (datetime.now(UTC) - run.started).total_seconds()
    return run.seconds


def _as_json(run: Run) -> dict[str, Any]:
    return {
        "folder": str(run.folder),
        "experiment": run.experiment,
        "started": run.started.isoformat(),
        "state": run.state,
        "reason": _text(run, "reason"),
        "damage": list(run.damage),
        "seconds": run.seconds,
        "sweep": str(run.sweep) if run.sweep else None,
        "swept": list(run.swept) if run.sweep else [],
        "overrides": list(run.overrides),
        "commit": _text(run, "commit"),
        "metrics": dict(run.metrics),
    }
