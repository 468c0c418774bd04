"""The epochs of files that a training loop saved, from the numbers in their names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_EPOCH, _STEP = re.compile(r"(?:epoch|\bep)s?$"), re.compile(r"(?:step|iter(?:ation)?)s?$")
_MOST_NAMED = 6
_REMEDY = "name them by epoch, such as epoch_0.pt, epoch_1.pt, …"


@dataclass(frozen=True)
class _Name:
    """A file name, as the texts between its numbers, and the numbers."""

    name: str
    texts: tuple[str, ...]
    numbers: tuple[str, ...]

    @classmethod
    def split(cls, name: str, suffix: str) -> "_Name":
        stem = name.removesuffix(suffix)
        return cls(name, tuple(_NUMBER.split(stem.lower())), tuple(_NUMBER.findall(stem)))

    def position(self, label: re.Pattern[str]) -> int | None:
        """The number that follows a label, such as ``epoch=3``."""
        words = [re.sub(r"[^a-z]+", " ", text).strip() for text in self.texts[:-1]]
        return next((i for i, word in enumerate(words) if label.search(word)), None)


def epochs_of(suffixes: Mapping[str, str]) -> dict[str, int]:
    """The epoch of each file, in ascending order of the epochs.

    It is the number after ``epoch``, else the only number that differs between the names.
    Lightning's ``epoch=3-step=400`` are the weights after four epochs. Numbers of steps have no
    epochs: such files are numbered 0, 1, … in their order.

    Args:
        suffixes: the suffix of each file, by its name.

    Returns:
        Epochs by name.

    Raises:
        ValueError: a name has no such number, the names differ in several, or two are equal; lists
            the names.

    >>> epochs_of({"epoch_10.pt": ".pt", "epoch_9.pt": ".pt"})
    {'epoch_9.pt': 9, 'epoch_10.pt': 10}
    >>> epochs_of({"epoch=0-step=9.ckpt": ".ckpt", "epoch=1-step=18.ckpt": ".ckpt"})
    {'epoch=0-step=9.ckpt': 1, 'epoch=1-step=18.ckpt': 2}
    >>> epochs_of({"step_500.pt": ".pt", "step_0.pt": ".pt"})
    {'step_0.pt': 0, 'step_500.pt': 1}
    """
    names = [_Name.split(name, suffix) for name, suffix in suffixes.items()]
    if unnumbered := [n.name for n in names if not n.numbers]:
        raise ValueError(
            f"{_listed(unnumbered)} without a number: move such files away, or {_REMEDY}"
        )
    numbers = _lightning(names)
    if numbers is None:
        position, is_step = _position(names)
        numbers = {name.name: _integer(name, position) for name in names}
        if is_step:
            order = sorted(numbers.values())
            numbers = {name: order.index(number) for name, number in numbers.items()}
    by_number: dict[int, list[str]] = {}
    for name, number in numbers.items():
        by_number.setdefault(number, []).append(name)
    if equal := next((group for group in by_number.values() if len(group) > 1), None):
        raise ValueError(f"{_listed(equal)} of one number: keep one of them, or {_REMEDY}")
    return dict(sorted(numbers.items(), key=lambda item: item[1]))


def _lightning(names: Sequence[_Name]) -> dict[str, int] | None:
    """Epochs of names as ModelCheckpoint writes them, after an epoch; ``None`` of others."""
    epochs = {}
    for name in names:
        if not (match := re.match(r"epoch=(\d+)-step=(\d+)(?=\D|$)", name.name)):
            return None
        epochs[name.name] = int(match[1]) + (int(match[2]) > 0)
    return epochs


def _position(names: Sequence[_Name]) -> tuple[int, bool]:
    """The position of the number that orders the names, and whether it counts steps."""
    texts = {name.texts for name in names}
    if len(texts) > 1:
        different = [next(n.name for n in names if n.texts == text) for text in sorted(texts)]
        raise ValueError(
            f"{_listed(different)} of different kinds: keep files of one kind, or {_REMEDY}"
        )
    first = names[0]
    if (epoch := first.position(_EPOCH)) is not None:
        return epoch, False
    differing = [
        i for i in range(len(first.numbers)) if len({name.numbers[i] for name in names}) > 1
    ] or [len(first.numbers) - 1]
    if len(differing) > 1:
        raise ValueError(
            f"{_listed([n.name for n in names])} whose names differ in several numbers: {_REMEDY}"
        )
    return differing[0], first.position(_STEP) == differing[0]


def _integer(name: _Name, position: int) -> int:
    number = name.numbers[position]
    if "." in number or len(number) > 12:
        raise ValueError(f"{name.name} has the number {number[:20]}, which is no epoch: {_REMEDY}")
    return int(number)


def _listed(names: Sequence[str]) -> str:
    shown = sorted(names)[:_MOST_NAMED]
    more = len(names) - len(shown)
    return f"it has {', '.join(shown)}" + (f" and {more} more" if more else "")
