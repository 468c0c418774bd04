"""`cwx experts`: lists the store, and deletes entries that were not used for long."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cwx.cli.parser import Parser, existing_directory, program_name, suggestion
from cwx.cli.tables import Cell, local_time, print_text, table
from cwx.errors import UserError, printable
from cwx.storage.quantities import size
from cwx.storage.store_entries import Entry, NotPrunableError, check_prunable, entries, prune

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_ACTIONS = ("ls", "prune")


def parser() -> Parser:
    name = f"{program_name()} experts"
    arguments = Parser(
        "experts",
        does="List what the store holds (trained and imported networks, constructed images), or "
        "prune it.",
        examples=f"""  {name}                                   all entries, last used first
  {name} --store /scratch/store --json
  {name} prune                             entries not used for 30 days
  {name} prune --older-than 12w --yes      delete them
  {name} prune 3f09 d41d --older-than 0s   only entries with these prefixes

Nothing is deleted without --yes. Entries in training, entries that a running study uses, and
folders that no store wrote are never deleted. A later study trains a deleted entry again.""",
    )
    arguments.add_argument("action", nargs="?", default="ls", metavar="ls | prune")
    arguments.add_argument("names", nargs="*", metavar="name", help="prefixes of entries' names")
    arguments.add_argument("--store", default="store", metavar="FOLDER", help="the store (store)")
    arguments.add_argument("--json", action="store_true", help="as JSON, for programs")
    arguments.add_argument(
        "--older-than",
        metavar="AGE",
        help="prune entries not used for this long: 30d, 12h, 4w (30d)",
    )
    arguments.add_argument("--yes", action="store_true", help="delete, instead of only listing")
    return arguments


def main(argv: Sequence[str]) -> None:
    """List or prune the store.

    Raises:
        UserError: an invalid argument, or no such folder or entry.
    """
    arguments = parser().parse_intermixed_args(argv)
    if arguments.action not in _ACTIONS:
        raise UserError(
            f"there is no {printable(arguments.action)}: {suggestion(arguments.action, _ACTIONS)}"
        )
    if arguments.action == "ls" and (arguments.yes or arguments.older_than):
        raise UserError(f"--yes and --older-than are for {program_name()} experts prune")
    store = existing_directory(arguments.store)
    selected = _select(store, arguments.names)
    if arguments.action == "prune":
        age = seconds("30d" if arguments.older_than is None else arguments.older_than)
        _prune(selected, older_than=age, really=arguments.yes, named=bool(arguments.names))
    elif arguments.json:
        print_text(json.dumps([_as_json(entry) for entry in selected], indent=2))
    else:
        print_text(_as_table(store, selected))


def seconds(age: str) -> float:
    """An age in seconds.

    >>> seconds("12h")
    43200.0

    Raises:
        UserError: not a number and a unit.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", age)
    if match is None:
        raise UserError(
            f"--older-than is {printable(age)}: give a number and one of {', '.join(_UNITS)}, "
            "as in 30d"
        )
    return float(match[1]) * _UNITS[match[2]]


def _select(store: Path, names: Sequence[str]) -> list[Entry]:
    all_entries = entries(store)
    for name in names:
        if not any(entry.path.name.startswith(name) for entry in all_entries):
            known = [entry.path.name for entry in all_entries]
            remedy = (
                suggestion(name, known) if len(known) < 5 else f"{program_name()} experts lists all"
            )
            raise UserError(f"{printable(store)} has no {printable(name)}: {remedy}")
    return [e for e in all_entries if not names or e.path.name.startswith(tuple(names))]


def _prune(selected: Sequence[Entry], *, older_than: float, really: bool, named: bool) -> None:
    kept: Counter[str] = Counter()
    deleted = freed = 0
    for entry in selected:
        # Before its files are deleted.
        content = _content(entry)
        try:
            if really:
                freed += prune(entry.path, older_than=older_than)
            else:
                check_prunable(entry, older_than=older_than)
                freed += entry.size
        except NotPrunableError as refusal:
            kept[str(refusal)] += 1
            if named:
                print_text(f"{entry.path.name} stays: {printable(refusal)}")
        else:
            deleted += 1
            action = "deleted" if really else "would delete"
            print_text(f"{action} {entry.path.name}  {size(entry.size)}  {printable(content)}")
    for reason, count in kept.items():
        if not named:
            print_text(f"{count} {'stays' if count == 1 else 'stay'}: {printable(reason)}")
    if really or not deleted:
        print_text(f"{deleted} of {len(selected)} deleted, {size(freed)} freed")
    else:
        print_text(
            f"{deleted} of {len(selected)} would go and free {size(freed)}: "
            "add --yes to delete them"
        )


def _as_table(store: Path, selected: Sequence[Entry]) -> str:
    if not selected:
        return f"{printable(store)} is empty: studies fill it"
    header = ["name", "what", "seed", "data", "epochs", "accuracy", "size", "last used", "used by"]
    lines = table(header, [_row(entry) for entry in selected], shrink=len(header) - 1)
    return f"{lines}\n{len(selected)} in {printable(store)}, {size(sum(e.size for e in selected))}"


def _row(entry: Entry) -> list[Cell]:
    seed = entry.identity.get("seed")
    uses = entry.uses
    latest = list(uses)[-1:]
    used = f"{latest[0]}{f' and {len(uses) - 1} more' if len(uses) > 1 else ''}" if latest else ""
    return [
        entry.path.name,
        _content(entry),
        seed if isinstance(seed, int) else None,
        _data(entry),
        _length(entry),
        entry.accuracy,
        size(entry.size),
        local_time(datetime.fromtimestamp(entry.last_used, UTC)),
        used,
    ]


def _content(entry: Entry) -> str:
    """The content of an entry, in words."""
    identity = entry.identity
    if not identity:
        return "nothing"
    if "statistic" in identity:
        content = f"statistic {_object(identity['statistic'])} of a network"
    elif "network" in identity:
        content = _object(identity["network"])
        attack = _mapping(_mapping(identity.get("recipe")).get("attack"))
        if str(attack.get("_target_", "")).rpartition(".")[2] not in ("", "no_attack"):
            content += ", adversarial training"
    elif "checkpoint" in identity:
        content = f"checkpoint {str(identity['checkpoint'])[:8]}"
    elif "buffer" in identity:
        content = f"expert {identity.get('expert')} of buffer {str(identity['buffer'])[:8]}"
    else:
        content = _images(identity)
    if entry.is_locked():
        return f"{content} (being written)"
    return content if entry.complete else f"{content} (unfinished)"


def _images(identity: Mapping[str, Any]) -> str:
    """Constructed images: the part of a study that made them, and its algorithm."""
    for name, part in identity.items():
        algorithm = _mapping(part).get("algorithm", part)
        if name != "precision" and isinstance(algorithm, Mapping) and "_target_" in algorithm:
            return f"{name}: {_object(algorithm)}"
    return "images"


def _object(settings: Any) -> str:
    """An object as a constructor call, with its plain settings.

    >>> _object({"_target_": "a.B", "_partial_": True, "width": 8, "norm": {"_target_": "c.D"}})
    'B(width=8)'
    """
    settings = _mapping(settings)
    name = str(settings.get("_target_", "")).rpartition(".")[2]
    if name == "external" and isinstance(settings.get("build"), Mapping):
        return _object(settings["build"])
    values = {
        key: value
        for key, value in settings.items()
        if not key.startswith("_") and isinstance(value, int | float | str | list)
    }
    return f"{name}({', '.join(f'{k}={json.dumps(v)}' for k, v in values.items())})"


def _data(entry: Entry) -> str:
    """The training data, by its name in the last run that used the entry, and its digest."""
    names = [str(use["data"]) for use in entry.uses.values() if use.get("data")]
    digest = entry.identity.get("data")
    known = [*names[-1:], *([digest[:8]] if isinstance(digest, str) else [])]
    return " ".join(known)


def _length(entry: Entry) -> str:
    epochs, count = entry.complete.get("epochs"), entry.complete.get("count")
    if isinstance(count, int):
        return f"{count} images"
    if not (isinstance(epochs, list) and epochs and all(isinstance(e, int) for e in epochs)):
        return ""
    kept = "" if len(epochs) == epochs[-1] + 1 else f", {len(epochs)} kept"
    return f"{epochs[-1]}{kept}"


def _as_json(entry: Entry) -> dict[str, Any]:
    accuracy = entry.accuracy
    return {
        "folder": str(entry.path),
        "what": _content(entry),
        "complete": bool(entry.complete),
        "locked": entry.is_locked(),
        "prunable": entry.foreign_reason() is None,
        "accuracy": None if accuracy is None or math.isnan(accuracy) else accuracy,
        "bytes": entry.size,
        "last_used": datetime.fromtimestamp(entry.last_used, UTC).isoformat(timespec="seconds"),
        "uses": entry.uses,
        "identity": entry.identity,
        **({"epochs": entry.complete["epochs"]} if "epochs" in entry.complete else {}),
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
