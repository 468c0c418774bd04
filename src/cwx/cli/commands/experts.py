"""`cwx experts`: what the store holds, and giving up what nobody has used for long."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cwx.cli.parser import Parser, called, existing_folder, meant
from cwx.cli.tables import Cell, plain, say, table, when
from cwx.errors import UserError
from cwx.storage.quantities import size
from cwx.storage.store_entries import Entry, KeptError, check_prunable, entries, prune

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_ACTIONS = ("ls", "prune")


def parser() -> Parser:
    name = f"{called()} experts"
    parsed = Parser(
        "experts",
        does="List what the store holds (trained and imported networks, constructed images), or "
        "prune it.",
        examples=f"""  {name}                                   what there is, the last used first
  {name} --store /scratch/store --json
  {name} prune                             what has not been used for 30 days
  {name} prune --older-than 12w --yes      delete it
  {name} prune 3f09 d41d --older-than 0s   only entries whose names begin so

Nothing is deleted without --yes; nothing ever that is being made, that a run which goes on has
taken, or that no store wrote. What a study lacks later is trained again.""",
    )
    parsed.add_argument("action", nargs="?", default="ls", metavar="ls | prune")
    parsed.add_argument("names", nargs="*", metavar="name", help="the beginning of entries' names")
    parsed.add_argument("--store", default="store", metavar="FOLDER", help="the store (store)")
    parsed.add_argument("--json", action="store_true", help="everything known, for programs")
    parsed.add_argument(
        "--older-than",
        metavar="AGE",
        help="prune what was not used for so long: 30d, 12h, 4w (30d)",
    )
    parsed.add_argument("--yes", action="store_true", help="do delete")
    return parsed


def main(argv: Sequence[str]) -> None:
    """List or prune the store.

    Raises:
        UserError: what is asked for cannot be.
    """
    asked = parser().parse_intermixed_args(argv)
    if asked.action not in _ACTIONS:
        raise UserError(f"there is no {plain(asked.action)}: {meant(asked.action, _ACTIONS)}")
    if asked.action == "ls" and (asked.yes or asked.older_than):
        raise UserError(f"--yes and --older-than are for {called()} experts prune")
    store = existing_folder(asked.store)
    chosen = _chosen(store, asked.names)
    if asked.action == "prune":
        age = seconds("30d" if asked.older_than is None else asked.older_than)
        _prune(chosen, older_than=age, really=asked.yes, named=bool(asked.names))
    elif asked.json:
        say(json.dumps([_described(entry) for entry in chosen], indent=2))
    else:
        say(_listed(store, chosen))


def seconds(age: str) -> float:
    """How long an age is.

    >>> seconds("12h")
    43200.0

    Raises:
        UserError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", age)
    if found is None:
        raise UserError(
            f"--older-than is {plain(age)}: give a number and one of {', '.join(_UNITS)}, as in 30d"
        )
    return float(found[1]) * _UNITS[found[2]]


def _chosen(store: Path, names: Sequence[str]) -> list[Entry]:
    everything = entries(store)
    for name in names:
        if not any(entry.path.name.startswith(name) for entry in everything):
            known = [entry.path.name for entry in everything]
            remedy = meant(name, known) if len(known) < 5 else f"{called()} experts lists all"
            raise UserError(f"{plain(store)} has no {plain(name)}: {remedy}")
    return [e for e in everything if not names or e.path.name.startswith(tuple(names))]


def _prune(chosen: Sequence[Entry], *, older_than: float, really: bool, named: bool) -> None:
    kept: Counter[str] = Counter()
    gone = freed = 0
    for entry in chosen:
        # While it is there to read.
        what = _what(entry)
        try:
            if really:
                freed += prune(entry.path, older_than=older_than)
            else:
                check_prunable(entry, older_than=older_than)
                freed += entry.size
        except KeptError as refusal:
            kept[str(refusal)] += 1
            if named:
                say(f"{entry.path.name} stays: {plain(refusal)}")
        else:
            gone += 1
            did = "deleted" if really else "would delete"
            say(f"{did} {entry.path.name}  {size(entry.size)}  {plain(what)}")
    for why, count in kept.items():
        if not named:
            say(f"{count} {'stays' if count == 1 else 'stay'}: {plain(why)}")
    if really or not gone:
        say(f"{gone} of {len(chosen)} deleted, {size(freed)} freed")
    else:
        say(f"{gone} of {len(chosen)} would go and free {size(freed)}: add --yes to delete them")


def _listed(store: Path, chosen: Sequence[Entry]) -> str:
    if not chosen:
        return f"{plain(store)} is empty: studies fill it"
    header = ["name", "what", "seed", "data", "epochs", "accuracy", "size", "last used", "used by"]
    lines = table(header, [_row(entry) for entry in chosen], shrink=len(header) - 1)
    return f"{lines}\n{len(chosen)} in {plain(store)}, {size(sum(e.size for e in chosen))}"


def _row(entry: Entry) -> list[Cell]:
    seed = entry.identity.get("seed")
    uses = entry.uses
    latest = list(uses)[-1:]
    used = f"{latest[0]}{f' and {len(uses) - 1} more' if len(uses) > 1 else ''}" if latest else ""
    return [
        entry.path.name,
        _what(entry),
        seed if isinstance(seed, int) else None,
        _data(entry),
        _length(entry),
        entry.accuracy,
        size(entry.size),
        when(datetime.fromtimestamp(entry.last_used, UTC)),
        used,
    ]


def _what(entry: Entry) -> str:
    """What an entry holds, in words."""
    identity = entry.identity
    if not identity:
        return "nothing"
    if "network" in identity:
        what = _object(identity["network"])
        attack = _mapping(_mapping(identity.get("recipe")).get("attack"))
        if str(attack.get("_target_", "")).rpartition(".")[2] not in ("", "no_attack"):
            what += ", adversarial training"
    elif "checkpoint" in identity:
        what = f"checkpoint {str(identity['checkpoint'])[:8]}"
    elif "buffer" in identity:
        what = f"expert {identity.get('expert')} of buffer {str(identity['buffer'])[:8]}"
    else:
        what = _set(identity)
    if entry.is_locked():
        return f"{what} (being made)"
    return what if entry.complete else f"{what} (unfinished)"


def _set(identity: Mapping[str, Any]) -> str:
    """Images made by a part of a study, whose settings stand under its group's name."""
    for name, part in identity.items():
        algorithm = _mapping(part).get("algorithm", part)
        if name != "precision" and isinstance(algorithm, Mapping) and "_target_" in algorithm:
            return f"{name}: {_object(algorithm)}"
    return "images"


def _object(settings: Any) -> str:
    """As one would build it, with the plainest of its settings.

    >>> _object({"_target_": "a.B", "_partial_": True, "width": 8, "norm": {"_target_": "c.D"}})
    'B(width=8)'
    """
    found = _mapping(settings)
    name = str(found.get("_target_", "")).rpartition(".")[2]
    if name == "external" and isinstance(found.get("build"), Mapping):
        return _object(found["build"])
    plainest = {
        key: value
        for key, value in found.items()
        if not key.startswith("_") and isinstance(value, int | float | str | list)
    }
    return f"{name}({', '.join(f'{k}={json.dumps(v)}' for k, v in plainest.items())})"


def _data(entry: Entry) -> str:
    """What it was trained on or made of, by the word of a run that took it, and its digest."""
    words = [str(use["data"]) for use in entry.uses.values() if use.get("data")]
    digest = entry.identity.get("data")
    known = [*words[-1:], *([digest[:8]] if isinstance(digest, str) else [])]
    return " ".join(known)


def _length(entry: Entry) -> str:
    epochs, count = entry.complete.get("epochs"), entry.complete.get("count")
    if isinstance(count, int):
        return f"{count} images"
    if not (isinstance(epochs, list) and epochs):
        return ""
    kept = "" if len(epochs) == epochs[-1] + 1 else f", {len(epochs)} kept"
    return f"{epochs[-1]}{kept}"


def _described(entry: Entry) -> dict[str, Any]:
    accuracy = entry.accuracy
    return {
        "folder": str(entry.path),
        "what": _what(entry),
        "complete": bool(entry.complete),
        "locked": entry.is_locked(),
        "prunable": entry.foreign() is None,
        "accuracy": None if accuracy is None or math.isnan(accuracy) else accuracy,
        "bytes": entry.size,
        "last_used": datetime.fromtimestamp(entry.last_used, UTC).isoformat(timespec="seconds"),
        "uses": entry.uses,
        "identity": entry.identity,
        **({"epochs": entry.complete["epochs"]} if "epochs" in entry.complete else {}),
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
