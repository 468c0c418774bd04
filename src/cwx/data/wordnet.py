"""Classes as nouns of WordNet 3.0, and the distances between them."""

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from cwx.errors import closest
from cwx.storage.wordnet_nouns import nouns

# The class deer of CIFAR-10 is the only noun without hyponyms here that is no class of ImageNet.
_DEER = "n02430045"


@cache
def imagenet_synsets() -> tuple[str, ...]:
    """The 1,000 classes of ImageNet (ILSVRC 2012), in the order of published networks' outputs."""
    hypernyms = {synset for noun in nouns().values() for synset in noun.hypernyms}
    return tuple(sorted(nouns().keys() - hypernyms - {_DEER}))


def nearest(name: str) -> list[str]:
    """The nouns whose words are most similar to `name`, as ``word (id)``."""
    words = {noun.name: synset for synset, noun in nouns().items()}
    query = name.strip().lower().replace(" ", "_")
    return [f"{word} ({words[word]})" for word in closest(query, words)]


def distances(synsets: Sequence[str]) -> Tensor:
    """Shortest path lengths between nouns through a common hypernym, ``[n, n]`` in float64.

        d(a, b) = min over hypernyms h of both of up(a, h) + up(b, h)

    where up(a, h) is the smallest number of steps from a up to h, and up(a, a) = 0. A noun may have
    several hypernyms; all are considered (NLTK's ``shortest_path_distance``; Dong et al., §2.2.1).
    Distances are whole numbers.

    >>> distances(["n02084071", "n02121620"])  # dog, cat
    tensor([[0., 4.],
            [4., 0.]], dtype=torch.float64)

    Args:
        synsets: ids in `nouns`; inner nodes are allowed as well as leaves.
    """
    column = {synset: number for number, synset in enumerate(nouns())}
    steps = [_steps_up(synset) for synset in synsets]
    up = torch.full((len(synsets), len(column)), math.inf, dtype=torch.float64)
    columns = [torch.tensor([column[hypernym] for hypernym in to]) for to in steps]
    for row, to in enumerate(steps):
        up[row, columns[row]] = torch.tensor(list(to.values()), dtype=torch.float64)
    # A noun has about twenty hypernyms: only their columns are finite in its row.
    rows = [(up[:, own] + up[row, own]).amin(1) for row, own in enumerate(columns)]
    return torch.stack(rows) if rows else up.new_zeros(0, 0)


def _steps_up(synset: str) -> dict[str, int]:
    """The smallest number of steps to each hypernym, and to the noun itself (0)."""
    steps, level, reached = {synset: 0}, 0, [synset]
    while reached:
        level += 1
        higher = [h for noun in reached for h in nouns()[noun].hypernyms if h not in steps]
        steps |= dict.fromkeys(higher, level)
        reached = list(dict.fromkeys(higher))
    return steps
