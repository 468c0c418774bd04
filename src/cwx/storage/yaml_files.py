"""Reading YAML that may be damaged or hostile, in bounded time and memory.

Hydra's files are plain: mappings, lists and scalars. Anchors and aliases are refused, because a few
hundred bytes of them expand to gigabytes; so are tags, merge keys and repeated keys.
"""

from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.constructor import ConstructorError

from cwx.storage.regular_files import read_regular_text

# Hydra's files have some 20 kB.
MAX_BYTES = 2**20
# And some 1,000 scalars, lists and mappings.
MAX_NODES = 20_000
MAX_DEPTH = 50
# A longer integer stays a text: Python converts numbers of more digits slowly or not at all.
_MAX_DIGITS = 40
# The C loader is ten times as fast, but not available everywhere.
_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Safe):  # type: ignore[misc]
    """The safe loader; dates stay texts, as in OmegaConf."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in _Safe.yaml_implicit_resolvers.items()
    }

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise ConstructorError(None, None, "merge keys are not read", node.start_mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            raise ConstructorError(None, None, "a key is there twice", node.start_mark)
        return mapping

    def construct_yaml_int(self, node: yaml.ScalarNode) -> Any:
        return super().construct_yaml_int(node) if len(node.value) <= _MAX_DIGITS else node.value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def read_yaml(file: Path) -> Any:
    """The value in a YAML file.

    Raises:
        OSError: the file is missing, no regular file, or larger than `MAX_BYTES`.
        ValueError: the file is not UTF-8 or not plain YAML (`read_plain_yaml`).
    """
    try:
        return yaml.load(read_plain_yaml(file), Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(_first_line(error)) from error


def read_plain_yaml(file: Path) -> str:
    """The text of a YAML file that is safe to load by any loader.

    Raises:
        OSError: as `read_yaml`.
        ValueError: the file is not UTF-8 or not YAML, has anchors, aliases or tags, or is nested
            more than `MAX_DEPTH` levels deep, or has more than `MAX_NODES` values.
    """
    text = read_regular_text(file, MAX_BYTES)
    depth = 0
    try:
        for number, event in enumerate(yaml.parse(text, Loader=_Safe)):
            if number > MAX_NODES:
                raise ValueError(f"more than {MAX_NODES:,} values")
            if getattr(event, "anchor", None) is not None:
                raise ValueError(f"line {event.start_mark.line + 1} has an anchor or an alias")
            if getattr(event, "tag", None) is not None:
                raise ValueError(f"line {event.start_mark.line + 1} has the tag {event.tag[:50]}")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
    except yaml.YAMLError as error:
        raise ValueError(_first_line(error)) from error
    return text


def _first_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    return f"{problem} in line {mark.line + 1}" if mark is not None else str(problem)
