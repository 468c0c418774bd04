"""Reading a volunteer's answers about pairs of neurons, a file from elsewhere."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwx.errors import UserError, printable
from cwx.storage.json_files import json_type, read_object
from cwx.storage.neuron_pairs import PairStudy

# Of a file: ten thousand answers have less.
MAX_BYTES = 2**22
MAX_NAME = 100
LEFT, RIGHT, CANNOT_SAY = "left", "right", "cannot say"
_ANSWERS = (LEFT, RIGHT, CANNOT_SAY)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers of one volunteer.

    Attributes:
        volunteer: the name that the volunteer gave.
        answers: ``left``, ``right`` or ``cannot say``, by the number of the pair, in the order in
            which the pairs were shown.
        seconds: the time that each answer took, in the same order.
    """

    volunteer: str
    answers: Mapping[int, str]
    seconds: tuple[float, ...]


def read_answers(file: Path, study: PairStudy) -> Answers:
    """The answers in a file that the page of a study saved.

    Raises:
        UserError: the file cannot be read, has answers about other pairs, or is not such a file;
            one line that names the file.
    """
    name = printable(file)
    try:
        content = read_object(file, MAX_BYTES)
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        reason = printable(str(error)[:200])
        raise UserError(
            f"{name} is no file of answers ({reason}): name a file that the page saved"
        ) from error
    try:
        return _answers(content, study)
    except _WrongStudyError as error:
        raise UserError(
            f"{name} has answers about other pairs ({error}): name the run whose page the "
            "volunteer used"
        ) from error
    except ValueError as error:
        raise UserError(f"{name} is no file of answers: {printable(error)}") from error


class _WrongStudyError(ValueError):
    """The answers are about the pairs of another study."""


def _answers(content: Mapping[str, Any], study: PairStudy) -> Answers:
    if not isinstance(digest := content.get("study"), str):
        raise ValueError("it does not name its study")
    if digest != study.digest:
        raise _WrongStudyError(f"study {printable(digest[:12])}, not {study.digest[:12]}")
    volunteer = content.get("volunteer")
    if not isinstance(volunteer, str) or not 0 < len(volunteer.strip()) <= MAX_NAME:
        raise ValueError(f"the volunteer is not a name of 1 to {MAX_NAME} characters")
    entries = content.get("answers")
    if not isinstance(entries, list) or not entries:
        raise ValueError("it has no answers")
    answers: dict[int, str] = {}
    seconds = []
    for position, entry in enumerate(entries, 1):
        pair, answer, time = _entry(entry, position)
        if pair not in study.pairs:
            raise ValueError(f"answer {position} is about the pair {pair}, which does not exist")
        if pair in answers:
            raise ValueError(f"the pair {pair} is answered twice")
        answers[pair] = answer
        seconds.append(time)
    return Answers(volunteer=volunteer.strip(), answers=answers, seconds=tuple(seconds))


def _entry(entry: Any, position: int) -> tuple[int, str, float]:
    if not isinstance(entry, dict):
        raise ValueError(f"answer {position} is {json_type(entry)}, not an object")
    pair, answer, seconds = (entry.get(key) for key in ("pair", "answer", "seconds"))
    if not isinstance(pair, int) or isinstance(pair, bool):
        raise ValueError(f"answer {position} does not have the number of a pair")
    if answer not in _ANSWERS:
        raise ValueError(f"answer {position} is none of {', '.join(_ANSWERS)}")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ValueError(f"answer {position} has no seconds")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"answer {position} took {seconds} seconds")
    return pair, answer, float(seconds)
