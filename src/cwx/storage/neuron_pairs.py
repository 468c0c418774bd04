"""The files of a study of neuron pairs in a run's folder: pairs, neurons and their pictures.

The tables have what the volunteers must not see (LC, layers, classes); the pictures are all that
they see.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cwx.storage.csv_files import read_csv

# A row per pair, a row per neuron, and a picture per neuron, named by its number.
PAIRS = "tables/neuron_pairs.csv"
NEURONS = "tables/neuron_pairs_neurons.csv"
PICTURES = "neuron_pairs"
# LC and simple statistics of a neuron, the columns that `cwx agreement` compares with answers. A
# higher value means a higher level of concept.
LC = "lc"
STATISTICS = (LC, "largest_fraction", "negative_entropy", "depth")
# Of a table.
_MAX_BYTES, _MAX_CELLS = 2**24, 1_000_000


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two neurons that a volunteer compares, by their numbers.

    Attributes:
        number: of the pair, from 1.
        left, right: neurons, by the side on which their pictures are.
        repeats: the number of the same pair with sides swapped, of which this is the repetition;
            ``None`` if it is not a repetition.
    """

    number: int
    left: int
    right: int
    repeats: int | None = None


@dataclass(frozen=True, kw_only=True)
class PairStudy:
    """The pairs of a study with people, and the key to them.

    Attributes:
        digest: identifies what the volunteers see: pictures, pairs and sides.
        pairs: by number.
        statistics: of each neuron, by its number and by the names of `STATISTICS`.
    """

    digest: str
    pairs: Mapping[int, Pair]
    statistics: Mapping[int, Mapping[str, float]]

    def difference(self, pair: Pair, statistic: str = LC) -> float:
        """The statistic of the right neuron minus that of the left; 0 within rounding."""
        values = (self.statistics[neuron][statistic] for neuron in (pair.right, pair.left))
        right, left = values
        return 0.0 if math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9) else right - left


def picture_name(neuron: int) -> str:
    """The path of a neuron's picture in the folder of the run."""
    return f"{PICTURES}/{neuron:05d}.png"


def pairs_digest(pairs: Iterable[Pair], pictures: Mapping[int, str]) -> str:
    """The SHA-256 in hexadecimal of what the volunteers see.

    Args:
        pairs: in any order.
        pictures: the SHA-256 of the pixels of each neuron's picture.
    """
    shown = sorted((pair.number, pictures[pair.left], pictures[pair.right]) for pair in pairs)
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()


def read_pair_study(folder: Path) -> PairStudy:
    """The pairs of the run in `folder`.

    Raises:
        OSError: a table is missing or no regular file.
        ValueError: a table is damaged.
    """
    neurons, rows = _rows(folder / NEURONS), _rows(folder / PAIRS)
    try:
        statistics = {
            int(row["neuron"]): {name: _finite(row[name]) for name in STATISTICS} for row in neurons
        }
        pictures = {int(row["neuron"]): row["picture_sha256"] for row in neurons}
        pairs = [
            Pair(
                number=int(row["pair"]),
                left=int(row["left"]),
                right=int(row["right"]),
                repeats=int(row["repeats"]) if row["repeats"] else None,
            )
            for row in rows
        ]
        by_number = {pair.number: pair for pair in pairs}
        unknown = {neuron for pair in pairs for neuron in (pair.left, pair.right)} - {*statistics}
        repeated = {pair.repeats for pair in pairs if pair.repeats is not None} - {*by_number}
        if len(by_number) < len(pairs) or len(statistics) < len(neurons) or unknown or repeated:
            raise ValueError("numbers that are there twice, or that are missing")
        return PairStudy(
            digest=pairs_digest(pairs, pictures), pairs=by_number, statistics=statistics
        )
    except (KeyError, ValueError) as error:
        fault = f"no column {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{PAIRS} or {NEURONS} is damaged ({fault}): repeat the evaluation with resume=<folder>"
        ) from error


def _rows(file: Path) -> Sequence[Mapping[str, str]]:
    table = read_csv(file, max_bytes=_MAX_BYTES, max_cells=_MAX_CELLS)
    if table.left_out or not table.rows:
        raise ValueError(f"{file.name} is damaged ({table.left_out or 'no rows'})")
    return table.rows


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number")
    return value
