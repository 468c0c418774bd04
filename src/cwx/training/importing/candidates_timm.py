"""Candidates among timm's networks, if timm is installed."""

import importlib
import inspect
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from cwx.training.importing.candidates import (
    Architecture,
    Family,
    Shapes,
    build_shapes,
    square_root,
)
from cwx.training.importing.candidates_external import external_architecture

# A number of classes that is no width of a layer, to find the tensors that depend on it.
_CLASSES = 1009
# Of 1,400 networks, so many are built to compare their tensors: seconds.
_MOST_MODULES, _MOST_BUILT = 3, 8
_MOST_NAMES, _LONGEST_NAME = 20_000, 300


@cache
def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError:
        return None


def named_family(words: Mapping[str, Any]) -> list[Family]:
    """The network that ``architecture``, the entry of timm's config.json, names."""
    name = words.get("architecture")
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or "/" in name:
        return []
    timm = _timm()
    return [] if timm is None or not timm.is_model(name) else _families([name])


def similar_families(shapes: Shapes) -> list[Family]:
    """The networks whose source has most of the names and numbers of these tensors."""
    timm = _timm()
    if timm is None or not 0 < len(shapes) <= _MOST_NAMES:
        return []
    names = {part for name in shapes for part in name[:_LONGEST_NAME].split(".")}
    modules = _similar_modules(frozenset(n for n in names if not n.isdecimal() and len(n) > 1))
    numbers = {size for shape in shapes.values() for size in shape} | _counts(shapes)
    scores = {
        name: score
        for module in modules
        for name in timm.list_models(module=module)
        if (score := _score(name, numbers)) is not None
    }
    best = sorted(scores, key=lambda name: scores[name], reverse=True)
    return _families(best[:_MOST_BUILT])


@cache
def _sources() -> dict[str, frozenset[str]]:
    """The words of the source of each module of timm's networks."""
    folder = Path(_timm().models.__file__).parent
    paths = {module: folder / f"{module}.py" for module in _timm().list_modules()}
    return {
        module: frozenset(re.findall(r"[A-Za-z]\w+", path.read_text(encoding="utf-8")))
        for module, path in paths.items()
        if path.is_file()
    }


def _similar_modules(names: frozenset[str]) -> list[str]:
    """The modules with the most of these names; a rare name counts more."""
    sources = _sources()
    frequency = Counter(name for words in sources.values() for name in names & words)
    scores = {
        module: sum(1 / frequency[name] for name in names & words)
        for module, words in sources.items()
    }
    return sorted(scores, key=lambda module: scores[module], reverse=True)[:_MOST_MODULES]


def _counts(shapes: Shapes) -> set[int]:
    """The lengths of all Sequentials, such as the number of blocks of a stage."""
    lengths: dict[str, int] = {}
    for name in shapes:
        parts = name[:_LONGEST_NAME].split(".")[:6]
        for index, part in enumerate(parts):
            if part.isascii() and part.isdecimal() and len(part) < 4:
                start = ".".join(parts[:index])
                lengths[start] = max(lengths.get(start, 0), int(part) + 1)
    return set(lengths.values())


def _score(name: str, numbers: set[int]) -> float | None:
    """How many of the numbers in the definition of a network are sizes of the tensors."""
    try:
        source = inspect.getsource(_timm().model_entrypoint(name))
    except (OSError, TypeError):
        return None
    body = source.partition("->")[2].partition('"""')[2].partition('"""')[2] or source
    values = {int(n) for n in re.findall(r"(?<![\w.])\d+(?![\w.])", body)} - {0, 1}
    return len(values & numbers) - 2 * len(values - numbers)


def _families(names: Sequence[str]) -> list[Family]:
    families = []
    for name in names:
        try:
            reference = _reference(name)
        except ValueError:
            continue
        families.append(
            Family(names=(next(iter(reference)),), candidates=partial(_candidates, name))
        )
    return families


@cache
def _reference(name: str) -> Shapes:
    return build_shapes(partial(_timm().create_model, name, num_classes=_CLASSES))


def _candidates(name: str, shapes: Shapes) -> Iterator[list[Architecture]]:
    reference = _reference(name)
    heads = [n for n, shape in reference.items() if shape[:1] == (_CLASSES,)]
    classes = shapes[heads[0]][0]
    stem = next((n for n, shape in reference.items() if len(shape) == 4), None)
    channels = shapes[stem][1] if stem else 3
    config = _timm().get_pretrained_cfg(name, allow_unregistered=True)
    arguments: dict[str, Any] = {"model_name": name, "num_classes": classes}
    if stem and channels != reference[stem][1]:
        arguments["in_chans"] = channels
    data: dict[str, Any] = {"classes": classes, "channels": channels}
    data["likely_size"] = config.input_size[-1] if config else 224
    size = _image_size(shapes, reference, stem)
    if size is not None:
        data["image_size"] = arguments["img_size"] = size
    elif config is not None and config.fixed_input_size:
        data["image_size"] = data["likely_size"]
    target = _timm().create_model
    yield [external_architecture(f"timm {name}", target, "timm.create_model", arguments, **data)]


def _image_size(shapes: Shapes, reference: Shapes, stem: str | None) -> int | None:
    """The side of the images from position embeddings of another number than usual."""
    positions, usual = shapes.get("pos_embed", ()), reference.get("pos_embed", ())
    if len(positions) != 3 or len(usual) != 3 or positions == usual or stem is None:
        return None
    patch = reference[stem][-1]
    # Tokens beside the patches: of the class, of distillation, registers.
    for others in range(usual[1]):
        try:
            square_root(usual[1] - others)
        except ValueError:
            continue
        return square_root(positions[1] - others) * patch
    return None
