"""The nouns of WordNet 3.0 above the classes of ImageNet and CIFAR-10 (Miller et al. 1990).

wordnet.json maps an id to the first word of the noun and the ids of its hypernyms, including
instance hypernyms. Its licence is in WORDNET-LICENSE.txt.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, kw_only=True)
class Noun:
    """A synset: its first word and the ids of its hypernyms."""

    name: str
    hypernyms: Sequence[str]


@cache
def nouns() -> Mapping[str, Noun]:
    """All bundled nouns by id, closed under hypernyms."""
    text = (files("cwx.storage") / "wordnet.json").read_text(encoding="utf-8")
    return {
        synset: Noun(name=name, hypernyms=hypernyms)
        for synset, (name, *hypernyms) in json.loads(text).items()
    }


_ID = re.compile(r"\bn\d{8}\b")


def readable(text: str) -> str:
    """A text of a figure, with the words of nouns instead of their ids.

    A word that several nouns have is followed by the id.

    >>> readable("n01443537 and n00000000")
    'goldfish and n00000000'
    """
    return _ID.sub(lambda match: _words().get(match[0], match[0]), text)


@cache
def _words() -> Mapping[str, str]:
    counts = Counter(noun.name for noun in nouns().values())
    return {
        synset: noun.name.replace("_", " ") + (f" {synset}" if counts[noun.name] > 1 else "")
        for synset, noun in nouns().items()
    }
