"""The class of each output of a network, from the names of folders."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torchvision.models import ResNet50_Weights

from cwx.data.class_order import in_order
from cwx.data.wordnet import imagenet_synsets
from cwx.functional.class_names import composed

_IMAGENET = 1000


@dataclass(frozen=True)
class OutputNames:
    """The names of a network's outputs.

    Attributes:
        names: in the order of the outputs; the folders' own names where a folder has images.
        is_known: whether the order is known, and not only the usual one.
        origin: of the order, in words.
    """

    names: tuple[str, ...]
    is_known: bool
    origin: str


def output_names(folders: Sequence[str], outputs: int, words: Sequence[str] | None) -> OutputNames:
    """The names of all outputs of a network whose images lie in `folders`.

    Args:
        folders: the names of the folders, each the name of a class.
        outputs: the number of outputs of the network.
        words: the names in the order of the outputs that the file of the network states.

    Raises:
        ValueError: there are more folders than outputs, or fewer and their outputs are unknown.
    """
    if len(folders) > outputs:
        raise ValueError(
            f"the network has {outputs} outputs, but the folder has {len(folders)} classes, such "
            f"as {folders[0]!r}: remove the folders of other classes, or name another network"
        )
    if words is not None and len(words) == outputs:
        names = _matched(folders, words, _plain)
        if names is not None:
            return OutputNames(names, True, "as the file of the network names them")
    if len(folders) == outputs:
        return OutputNames(in_order(folders), False, "in the order of the folders")
    for origin, names in _published(folders, outputs):
        if names is not None:
            return OutputNames(names, True, origin)
    raise ValueError(
        f"the network has {outputs} outputs, but the folder has {len(folders)} classes, such as "
        f"{folders[0]!r}: name all {outputs} in the order of the outputs, one per line of a text "
        "file, with --classes <file>"
    )


def _published(folders: Sequence[str], outputs: int) -> list[tuple[str, tuple[str, ...] | None]]:
    """Orders of more classes than there are folders."""
    numbers = tuple(map(str, range(outputs)))
    orders = [("numbers of the outputs", _matched(folders, numbers, _number))]
    if outputs == _IMAGENET:
        categories = ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
        orders += [
            ("ImageNet's, by WordNet id", _matched(folders, imagenet_synsets(), str)),
            ("ImageNet's, by name", _matched(folders, categories, _plain)),
        ]
    return orders


def _matched(
    folders: Sequence[str], names: Sequence[str], key: Callable[[str], str]
) -> tuple[str, ...] | None:
    """`names` with the folders' own spelling; ``None`` if a folder is not exactly one of them."""
    result = [composed(name) for name in names]
    keys = [key(name) for name in result]
    spelled: dict[int, str] = {}
    for folder in folders:
        exact = [i for i, name in enumerate(result) if name == folder]
        indices = exact or [i for i, k in enumerate(keys) if k == key(folder)]
        if len(indices) != 1 or indices[0] in spelled:
            return None
        spelled[indices[0]] = folder
    complete = tuple(spelled.get(i, name) for i, name in enumerate(result))
    return complete if len({*complete}) == len(complete) else None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", " ", composed(name)).strip().casefold()


def _number(name: str) -> str:
    return str(int(name)) if re.fullmatch(r"[0-9]{1,6}", name) else name
