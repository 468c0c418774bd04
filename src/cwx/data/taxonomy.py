"""How far apart the classes of a data set are in meaning (Dong et al., §2.2.1; D4)."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from cwx.data import wordnet
from cwx.data.datasets.folders import some
from cwx.data.splits import Splits
from cwx.errors import closest


class Taxonomy(Protocol):
    def distances(self, splits: Splits, setting: str) -> Tensor:
        """The distance of every two classes, ``[classes, classes]`` in float64, in their order.

        It is symmetric, 0 from a class to itself and above 0 to any other.

        Args:
            setting: what names the taxonomy, in messages.

        Raises:
            ValueError: it lacks a class, or is not such a matrix.
        """


class WordNet:
    """The shortest path through a common hypernym, for classes that are nouns of WordNet.

    What noun a class is says the data set (``data.source.synsets``): those of ImageNet, Tiny
    ImageNet and CIFAR-10 do.
    """

    def distances(self, splits: Splits, setting: str) -> Tensor:
        if splits.synsets is None:
            raise ValueError(
                f"{setting} is WordNet's, and the data do not say which of its nouns the classes "
                f"are: give them as data.source.synsets, or choose taxonomy@{setting}=file for a "
                f"taxonomy of your own or taxonomy@{setting}=flat for none"
            )
        return _between(dict(zip(splits.classes, splits.synsets, strict=True)), setting)


class Flat:
    """Classes without a taxonomy: all are siblings, two steps from each other."""

    def distances(self, splits: Splits, setting: str) -> Tensor:
        count = len(splits.classes)
        return 2 * (1 - torch.eye(count, dtype=torch.float64))


class File:
    """A taxonomy of the user's, read as text.

    - JSON: an object that gives the WordNet 3.0 noun of each class, ``{"dog": "n02084071"}``.
    - CSV of two columns with a line above, class and noun: the same.
    - CSV of more: a matrix of distances, with class names as the first line and column.

    A file may know more classes than the data have.

    Args:
        path: of the file; its ending, .json or .csv, says what it is.
    """

    def __init__(self, *, path: str) -> None:
        self.path = Path(path)

    def distances(self, splits: Splits, setting: str) -> Tensor:
        text = self._text(setting)
        if self.path.suffix == ".json":
            return _between(self._chosen(self._object(text), splits.classes), setting)
        header, *rows = self._table(text)
        by_class = self._by_class(rows)
        if len(header) > 2:
            return self._matrix(header, by_class, splits.classes)
        nouns = {name: noun for name, (noun,) in by_class.items()}
        return _between(self._chosen(nouns, splits.classes), setting)

    def _text(self, setting: str) -> str:
        if self.path.suffix not in (".json", ".csv"):
            raise ValueError(f"{setting}.path is {self.path}: give a .json or a .csv file")
        try:
            return self.path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{self.path} cannot be read as text ({error}): set {setting}.path to a taxonomy, "
                f"or choose another by taxonomy@{setting}=…"
            ) from error

    def _object(self, text: str) -> Mapping[str, str]:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.path} is no JSON ({error}): correct it") from error
        if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
            raise ValueError(
                f'{self.path} is no object of class names and WordNet ids: write {{"dog": '
                '"n02084071", …}'
            )
        return found

    def _table(self, text: str) -> list[list[str]]:
        try:
            rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
        except csv.Error as error:
            raise ValueError(f"{self.path} is no CSV ({error}): correct it") from error
        width = len(rows[0]) if rows else 0
        if width < 2 or len(rows) < 3:
            raise ValueError(
                f"{self.path} has {len(rows)} lines, the first of {width} cells: give a line of "
                "headings and one a class, of its name and its noun, or of its name and its "
                "distance to each class"
            )
        for number, row in enumerate(rows, 1):
            if len(row) != width:
                raise ValueError(
                    f"{self.path} has {len(row)} cells in line {number} and {width} in the first: "
                    "give every line as many"
                )
        return [[cell.strip() for cell in row] for row in rows]

    def _by_class(self, rows: Sequence[Sequence[str]]) -> dict[str, list[str]]:
        """What stands behind the name of each class."""
        self._once([name for name, *_ in rows])
        return {name: cells for name, *cells in rows}

    def _once(self, names: Sequence[str]) -> None:
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{self.path} has more than once: {some(twice)}; keep each once")

    def _chosen(self, nouns: Mapping[str, str], classes: Sequence[str]) -> dict[str, str]:
        """The noun of each class of the data."""
        self._require(classes, nouns)
        return {name: nouns[name] for name in classes}

    def _require(self, classes: Sequence[str], found: Mapping[str, object]) -> None:
        if missing := [name for name in classes if name not in found]:
            near = closest(missing[0], found)
            raise ValueError(
                f"{self.path} lacks {some(missing)} of the data's {len(classes)} classes (the "
                f"nearest to {missing[0]!r} are {', '.join(near)}): add a line for each"
            )

    def _matrix(
        self, header: Sequence[str], rows: Mapping[str, Sequence[str]], classes: Sequence[str]
    ) -> Tensor:
        names = header[1:]
        self._once(names)
        self._require(classes, dict.fromkeys(names))
        self._require(classes, rows)
        column = {name: place for place, name in enumerate(names)}
        found = [[self._number(a, b, rows[a][column[b]]) for b in classes] for a in classes]
        matrix = torch.tensor(found, dtype=torch.float64)
        self._check(matrix, classes)
        return matrix

    def _number(self, a: str, b: str, cell: str) -> float:
        try:
            number = float(cell)
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            raise ValueError(
                f"{self.path} gives {cell!r} as the distance from {a!r} to {b!r}: give a number, "
                "0 or more"
            )
        return number

    def _check(self, matrix: Tensor, classes: Sequence[str]) -> None:
        own = torch.eye(len(classes), dtype=torch.bool)
        faults = {
            "the same both ways": matrix != matrix.T,
            "0 from a class to itself": own & (matrix != 0),
            "above 0 between two classes": ~own & (matrix == 0),
        }
        for rule, wrong in faults.items():
            if wrong.any():
                a, b = wrong.nonzero()[0].tolist()
                raise ValueError(
                    f"{self.path} gives {matrix[a, b]:g} as the distance from {classes[a]!r} to "
                    f"{classes[b]!r} and {matrix[b, a]:g} back: distances must be {rule}"
                )


def _between(synsets: Mapping[str, str], setting: str) -> Tensor:
    """Distances in WordNet between classes, of which each has its noun."""
    for name, synset in synsets.items():
        if synset not in wordnet.nouns():
            raise ValueError(
                f"the synset of class {name!r}, {synset!r}, is not among the "
                f"{len(wordnet.nouns())} nouns that come along, those of ImageNet's classes and "
                f"above (the nearest names are {', '.join(wordnet.nearest(name))}): take one of "
                f"them, or give distances of your own by taxonomy@{setting}=file"
            )
    given = list(synsets.values())
    if shared := [name for name, synset in synsets.items() if given.count(synset) > 1]:
        raise ValueError(
            f"the classes {some(shared)} are the same noun of WordNet, {synsets[shared[0]]}: give "
            f"each its own, or distances of your own by taxonomy@{setting}=file"
        )
    return wordnet.distances(given)
