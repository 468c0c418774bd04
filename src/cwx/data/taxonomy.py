"""Semantic distances between the classes of a data set (Dong et al., §2.2.1)."""

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from cwx.data import wordnet
from cwx.data.datasets.class_folders import preview_names
from cwx.data.splits import Splits
from cwx.errors import closest
from cwx.functional.class_names import composed
from cwx.functional.class_similarity import correlation
from cwx.storage.json_files import parse_json
from cwx.storage.regular_files import read_regular_text
from cwx.storage.wordnet_nouns import nouns

# A matrix of 2,000 classes has some 40 MB.
_MAX_BYTES = 2**27


class Taxonomy(Protocol):
    """Measures semantic distances between classes."""

    def distances(self, splits: Splits, setting: str) -> Tensor:
        """Pairwise distances, ``[classes, classes]`` in float64, in the order of the classes.

        The matrix is symmetric, 0 on the diagonal and above 0 elsewhere.

        Args:
            setting: the name of the taxonomy's setting, for messages.

        Raises:
            ValueError: the taxonomy lacks a class, or its distances are not such a matrix.
        """


def correlation_of_classes(
    taxonomy: Taxonomy, splits: Splits, sigma: float, setting: str
) -> Tensor:
    """C of the classes of some data, ``[classes, classes]`` (Dong et al., Eq 2).

    Args:
        taxonomy: gives the distances.
        splits: the data.
        sigma: σ.
        setting: the setting that has ``taxonomy`` and ``sigma``, for messages.

    Raises:
        ValueError: the taxonomy lacks a class, or C is indefinite.
    """
    distances = taxonomy.distances(splits, f"{setting}.taxonomy")
    try:
        return correlation(distances, sigma)
    except ValueError as error:
        raise ValueError(f"{setting}.sigma: {error}") from error


class WordNet:
    """The shortest path through a common hypernym, for classes that are WordNet nouns.

    The data set gives the noun of each class (``data.source.synsets``): ImageNet, Tiny ImageNet
    and CIFAR-10 do.
    """

    def distances(self, splits: Splits, setting: str) -> Tensor:
        if splits.synsets is None:
            raise ValueError(
                f"{setting} is WordNet, but the data have no WordNet nouns for the classes: give "
                f"them as data.source.synsets, or choose taxonomy@{setting}=file for your own "
                f"taxonomy or taxonomy@{setting}=flat for none"
            )
        return _wordnet_distances(dict(zip(splits.classes, splits.synsets, strict=True)), setting)


class Flat:
    """No taxonomy: all classes are siblings, at distance 2 from each other."""

    def distances(self, splits: Splits, setting: str) -> Tensor:
        count = len(splits.classes)
        return 2 * (1 - torch.eye(count, dtype=torch.float64))


class File:
    """The user's own taxonomy, from a text file.

    - JSON: an object with the WordNet 3.0 noun of each class, ``{"dog": "n02084071"}``.
    - CSV with two columns, class and noun, and a header line: the same.
    - CSV with more columns: a distance matrix with class names in the first line and column.

    The file may contain more classes than the data.

    Args:
        path: the file; its suffix, .json or .csv, gives the format.
    """

    def __init__(self, *, path: str) -> None:
        self.path = Path(path)

    def distances(self, splits: Splits, setting: str) -> Tensor:
        text = self._text(setting)
        if self.path.suffix == ".json":
            return self._of_nouns(self._object(text), splits.classes, setting)
        header, *rows = self._table(text)
        cells = self._cells_by_class(rows)
        if len(header) > 2:
            return self._matrix(header, cells, splits.classes)
        nouns = {name: noun for name, (noun,) in cells.items()}
        return self._of_nouns(nouns, splits.classes, setting)

    def _of_nouns(self, nouns: Mapping[str, str], classes: Sequence[str], setting: str) -> Tensor:
        """WordNet distances of the data's classes."""
        own = self._nouns_of(nouns, classes)
        try:
            return _wordnet_distances(own, setting)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    def _text(self, setting: str) -> str:
        if self.path.suffix not in (".json", ".csv"):
            raise ValueError(f"{setting}.path is {self.path}: give a .json or a .csv file")
        try:
            text = read_regular_text(self.path, _MAX_BYTES, encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(
                f"{self.path} cannot be read as text ({reason}): set {setting}.path to a taxonomy, "
                f"or choose another by taxonomy@{setting}=…"
            ) from error
        # Class names are in Unicode's composed form.
        return composed(text)

    def _object(self, text: str) -> Mapping[str, str]:
        try:
            nouns = parse_json(text)
        except ValueError as error:
            raise ValueError(f"{self.path} is not valid JSON ({error}): correct it") from error
        if not isinstance(nouns, dict) or not all(isinstance(v, str) for v in nouns.values()):
            raise ValueError(
                f'{self.path} is not an object of class names and WordNet ids: write {{"dog": '
                '"n02084071", …}'
            )
        return nouns

    def _table(self, text: str) -> list[list[str]]:
        try:
            rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
        except csv.Error as error:
            raise ValueError(f"{self.path} is not valid CSV ({error}): correct it") from error
        width = len(rows[0]) if rows else 0
        if width < 2 or len(rows) < 3:
            raise ValueError(
                f"{self.path} has {len(rows)} lines, the first with {width} cells: give a header "
                "line and one line per class, with its name and its noun, or with its name and "
                "its distance to each class"
            )
        for number, row in enumerate(rows, 1):
            if len(row) != width:
                raise ValueError(
                    f"{self.path} has {len(row)} cells in line {number} and {width} in the first: "
                    "give every line the same number"
                )
        return [[cell.strip() for cell in row] for row in rows]

    def _cells_by_class(self, rows: Sequence[Sequence[str]]) -> dict[str, list[str]]:
        """The cells after the name of each class."""
        self._check_unique([name for name, *_ in rows])
        return {name: cells for name, *cells in rows}

    def _check_unique(self, names: Sequence[str]) -> None:
        if duplicates := sorted(name for name, count in Counter(names).items() if count > 1):
            raise ValueError(
                f"{self.path} has more than once: {preview_names(duplicates)}; keep each once"
            )

    def _nouns_of(self, nouns: Mapping[str, str], classes: Sequence[str]) -> dict[str, str]:
        """The noun of each class of the data."""
        self._require(classes, nouns)
        return {name: nouns[name] for name in classes}

    def _require(self, classes: Sequence[str], known: Mapping[str, object]) -> None:
        if missing := [name for name in classes if name not in known]:
            near = closest(missing[0], known)
            raise ValueError(
                f"{self.path} lacks {preview_names(missing)} of the data's {len(classes)} classes "
                f"(the nearest to {missing[0]!r} are {', '.join(near)}): add a line for each"
            )

    def _matrix(
        self, header: Sequence[str], rows: Mapping[str, Sequence[str]], classes: Sequence[str]
    ) -> Tensor:
        names = header[1:]
        self._check_unique(names)
        self._require(classes, dict.fromkeys(names))
        self._require(classes, rows)
        column = {name: index for index, name in enumerate(names)}
        values = [[self._distance(a, b, rows[a][column[b]]) for b in classes] for a in classes]
        matrix = torch.tensor(values, dtype=torch.float64)
        self._check(matrix, classes)
        return matrix

    def _distance(self, a: str, b: str, cell: str) -> float:
        try:
            distance = float(cell)
        except ValueError:
            distance = math.nan
        if not 0 <= distance < math.inf:
            raise ValueError(
                f"{self.path} gives {cell!r} as the distance from {a!r} to {b!r}: give a number, "
                "0 or more"
            )
        return distance

    def _check(self, matrix: Tensor, classes: Sequence[str]) -> None:
        diagonal = torch.eye(len(classes), dtype=torch.bool)
        faults = {
            "the same both ways": matrix != matrix.T,
            "0 from a class to itself": diagonal & (matrix != 0),
            "above 0 between two classes": ~diagonal & (matrix == 0),
        }
        for rule, violations in faults.items():
            if violations.any():
                a, b = violations.nonzero()[0].tolist()
                raise ValueError(
                    f"{self.path} gives {matrix[a, b]:g} as the distance from {classes[a]!r} to "
                    f"{classes[b]!r} and {matrix[b, a]:g} back: distances must be {rule}"
                )


def _wordnet_distances(synsets: Mapping[str, str], setting: str) -> Tensor:
    """WordNet distances between classes, given the noun of each."""
    for name, synset in synsets.items():
        if synset not in nouns():
            raise ValueError(
                f"the synset of class {name!r}, {synset!r}, is not among the "
                f"{len(nouns())} bundled nouns (ImageNet's classes and their hypernyms; "
                f"the nearest names are {', '.join(wordnet.nearest(name))}): use one of them, "
                f"or give your own distances by taxonomy@{setting}=file"
            )
    ids = list(synsets.values())
    counts = Counter(ids)
    if shared := [name for name, synset in synsets.items() if counts[synset] > 1]:
        raise ValueError(
            f"the classes {preview_names(shared)} have the same WordNet noun, {synsets[shared[0]]}"
            f": give each its own, or give your own distances by taxonomy@{setting}=file"
        )
    return wordnet.distances(ids)
