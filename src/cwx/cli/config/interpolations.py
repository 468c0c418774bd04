"""Interpolations in settings: those of a saved run, and how much all of them expand to.

A few hundred bytes can expand to gigabytes: ``b: ${a}${a}``, ``c: ${b}${b}`` and so on.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from cwx.errors import UserError

# Characters of a resolved configuration; a large study has some 50,000.
MAX_SIZE = 2**22
# Each value counts at least this much, so that empty ones are bounded, too.
_VALUE = 32
# References that follow each other, with the values between them.
_MAX_DEPTH = 60
# An opening bracket whose dollar sign is not escaped.
_OPENING = r"(?<!\\)(?:\\\\)*\$\{\s*"
_REFERENCE = re.compile(
    _OPENING + r"(?:oc\.(?:select|dict\.keys|dict\.values)\s*:\s*)?([.\w\[\]-]+)\s*(?=[},])"
)
_RESOLVER = re.compile(_OPENING + r"([\w.]+)\s*:")
# Hydra registers these when it starts.
_OF_HYDRA = frozenset({"hydra", "now", "python_version"})
# Resolvers that read no more than a setting's value or one variable of the environment.
_OF_SAVED = frozenset({"oc.env", "sum", "choice", "now", "hydra"})
# What the size of an expansion cannot be told from: the name of a setting is computed.
_COMPUTED = re.compile(_OPENING + r"[^:{}]*\$\{")
_DECODED = re.compile(_OPENING + r"oc\.decode\s*:\s*(?=\$\{\s*oc\.env\s*:)")

Keys = tuple[str, ...]


def saved_overrides(overrides: Any, file: Path) -> list[str]:
    """The overrides in a file of a saved run, if no interpolation does more than a reference.

    References, variables of the environment, also decoded ones, the time, sums, choices and
    settings of Hydra are allowed.

    Raises:
        UserError: they are no list of texts, or one has another resolver, or a reference to a
            computed name.
    """
    if not isinstance(overrides, list) or not all(isinstance(line, str) for line in overrides):
        raise UserError(f"{file} is damaged: it has no list of settings; restore it, or start anew")
    for line in overrides:
        rest = _DECODED.sub("", line)
        names = [name for name in _RESOLVER.findall(rest) if name not in _OF_SAVED]
        if names or _COMPUTED.search(rest):
            what = f"the resolver {names[0]}" if names else "a reference to a computed name"
            raise UserError(
                f"{file}: {line[:100]} has {what}, which is not resolved for a saved run: start "
                "the study anew with the value instead"
            )
    return overrides


def unknown_resolver(configuration: Any) -> str | None:
    """The first resolver in an unresolved configuration that does not exist."""
    texts = (value for _, value in _nodes(configuration, ()) if isinstance(value, str))
    names = (name for text in texts for name in _RESOLVER.findall(text))
    return next((n for n in names if n not in _OF_HYDRA and not OmegaConf.has_resolver(n)), None)


def check_expansion(configuration: Mapping[str, Any]) -> None:
    """Refuse a configuration that its interpolations expand beyond bounds, without expanding it.

    Args:
        configuration: plain values, interpolations unresolved.

    Raises:
        UserError: names a setting that refers to itself, or one that expands to more than
            `MAX_SIZE` characters or over more than `_MAX_DEPTH` references.
    """
    _Sizes(configuration).size(())


class _Sizes:
    """The number of characters of each setting, references included."""

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        self._nodes = dict(_nodes(configuration, ()))
        self._sizes: dict[Keys, int] = {}
        self._open: list[Keys] = []

    def size(self, path: Keys) -> int:
        if path in self._sizes:
            return self._sizes[path]
        name = ".".join(path)
        if path in self._open:
            circle = " → ".join(".".join(p) for p in self._open[self._open.index(path) :])
            raise UserError(f"{name} refers to itself ({circle} → {name}): give it a value")
        if len(self._open) > _MAX_DEPTH:
            raise UserError(
                f"{name} is more than {_MAX_DEPTH} references deep: give it a value instead"
            )
        self._open.append(path)
        total = _VALUE + self._own_size(path)
        self._open.pop()
        if total > MAX_SIZE:
            raise UserError(
                f"{name or 'the configuration'} expands to more than {MAX_SIZE:,} characters by "
                "its interpolations: give values instead of references"
            )
        self._sizes[path] = total
        return total

    def _own_size(self, path: Keys) -> int:
        value = self._nodes[path]
        if isinstance(value, Mapping | list):
            return sum(self.size((*path, key)) for key in _items(value))
        if not isinstance(value, str):
            return 0
        targets = (self._target(_absolute(n, path)) for n in _REFERENCE.findall(value))
        return len(value) + sum(self.size(target) for target in targets if target)

    def _target(self, path: Keys) -> Keys | None:
        """The setting at `path`, also below a setting that is itself a reference."""
        for _ in range(_MAX_DEPTH):
            if path in self._nodes:
                return path
            known = next((n for n in range(len(path) - 1, 0, -1) if path[:n] in self._nodes), 0)
            value = self._nodes.get(path[:known])
            reference = _REFERENCE.match(value) if isinstance(value, str) else None
            if not known or reference is None:
                return None
            path = (*_absolute(reference[1], path[:known]), *path[known:])
        return None


def _items(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    return {str(n): item for n, item in enumerate(value)} if isinstance(value, list) else {}


def _absolute(name: str, path: Keys) -> Keys:
    """The path that a reference in the setting at `path` means; leading dots go up."""
    keys = tuple(key for key in re.split(r"[.\[\]]+", name) if key)
    dots = len(name) - len(name.lstrip("."))
    return (*path[: max(0, len(path) - dots)], *keys) if dots else keys


def _nodes(value: Any, path: Keys) -> Iterator[tuple[Keys, Any]]:
    yield path, value
    for key, item in _items(value).items():
        yield from _nodes(item, (*path, key))
