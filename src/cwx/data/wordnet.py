"""The nouns of WordNet 3.0 above the classes of ImageNet and CIFAR-10 (Miller et al. 1990).

wordnet.json holds, by id, the first word of a noun and the ids of its hypernyms, also of those
that it is an instance of. Its licence is in WORDNET-LICENSE.txt.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import torch
from torch import Tensor

from cwx.errors import closest


@dataclass(frozen=True, kw_only=True)
class Noun:
    """A set of synonyms: the first of them, and the ids of its hypernyms."""

    name: str
    hypernyms: Sequence[str]


@cache
def nouns() -> Mapping[str, Noun]:
    """All nouns that come along, by id; every hypernym is among them."""
    text = (files("cwx.data") / "wordnet.json").read_text(encoding="utf-8")
    return {
        synset: Noun(name=name, hypernyms=hypernyms)
        for synset, (name, *hypernyms) in json.loads(text).items()
    }


def nearest(name: str) -> list[str]:
    """The nouns whose words are most like `name`, as ``word (id)``."""
    words = {noun.name: synset for synset, noun in nouns().items()}
    wanted = name.strip().lower().replace(" ", "_")
    return [f"{word} ({words[word]})" for word in closest(wanted, words)]


def distances(synsets: Sequence[str]) -> Tensor:
    """The length of the shortest path between nouns through a common hypernym, ``[n, n]``.

        d(a, b) = min over hypernyms h of both of up(a, h) + up(b, h)

    with up the fewest steps to a hypernym, 0 to the noun itself. A noun may have several
    hypernyms, and all of them count (NLTK's ``shortest_path_distance``; Dong et al., §2.2.1). Whole
    numbers, as float64.

    >>> distances(["n02084071", "n02121620"])  # dog, cat
    tensor([[0., 4.],
            [4., 0.]], dtype=torch.float64)

    Args:
        synsets: ids that are among `nouns`; inner nouns are as good as leaves.
    """
    place = {synset: column for column, synset in enumerate(nouns())}
    above = [_steps_up(synset) for synset in synsets]
    up = torch.full((len(synsets), len(place)), math.inf, dtype=torch.float64)
    columns = [torch.tensor([place[hypernym] for hypernym in found]) for found in above]
    for row, found in enumerate(above):
        up[row, columns[row]] = torch.tensor(list(found.values()), dtype=torch.float64)
    # Of each noun its own hypernyms alone, some twenty of all columns.
    rows = [(up[:, own] + up[row, own]).amin(1) for row, own in enumerate(columns)]
    return torch.stack(rows) if rows else up.new_zeros(0, 0)


def _steps_up(synset: str) -> dict[str, int]:
    """The fewest steps to each hypernym."""
    steps, level, reached = {synset: 0}, 0, [synset]
    while reached:
        level += 1
        higher = [h for noun in reached for h in nouns()[noun].hypernyms if h not in steps]
        steps |= dict.fromkeys(higher, level)
        reached = list(dict.fromkeys(higher))
    return steps
