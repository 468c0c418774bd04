"""The process that unpickles a whole network: it runs the code that the file names.

`trusted_state` starts it by itself, as ``python -m``: with a file, a folder for the results and a
folder of modules. It leaves ``state.safetensors`` and ``result.json``.
"""

import ast
import importlib
import json
import pkgutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cwx.errors import UserError
from cwx.storage.pickle_scan import scan_pickle
from cwx.storage.safe_load import is_plain
from cwx.training.importing.file_words import words_of
from cwx.training.importing.nests import NESTS, open_nests

STATE, RESULT = "state.safetensors", "result.json"
# Beside what the process has, for the copies of the tensors and the classes.
_MEMORY, _COPIES = 2 * 2**30, 6
_MOST_FILES, _LONGEST_FILE = 200, 2**20
# The module of classes that the saving script defined itself.
_SCRIPT = "__main__."


def unpickle(path: Path, modules: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state and the description of the network in a file; runs the code that the file names.

    The description is ``{"missing": names of classes}``, ``{"error": text}`` of the code,
    ``{"refused": text}`` for other contents, or ``{"class": import path, "words": words}``.
    """
    sys.path.insert(0, str(modules))
    if missing := _missing(path, modules):
        return {}, {"missing": missing}
    try:
        value = torch.load(path, map_location="cpu", weights_only=False)
        network, words = _network(value)
        if network is None:
            nest = open_nests(path, value)
            return _copies(nest.tensors), {"class": "", "words": words_of(nest.levels)}
        kind = type(network)
        state = _copies(network.state_dict())
    except UserError as error:
        return {}, {"refused": str(error)}
    except Exception as error:
        return {}, {"error": f"{type(error).__name__} {error}".strip()}
    return state, {"class": f"{kind.__module__}.{kind.__qualname__}", "words": words}


def _network(value: Any) -> tuple[nn.Module | None, Mapping[str, Any]]:
    """The network in the contents of a file, and the words beside it."""
    if isinstance(value, nn.Module):
        return value, {}
    if not isinstance(value, Mapping):
        return None, {}
    networks = {key: item for key, item in value.items() if isinstance(item, nn.Module)}
    key = next((key for key in [*NESTS, *networks] if key in networks), None)
    return (None if key is None else networks[key]), words_of([value])


def _copies(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        str(name): tensor.detach().contiguous().clone()
        for name, tensor in state.items()
        if is_plain(tensor)
    }


def _missing(path: Path, modules: Path) -> list[str]:
    """The classes and functions of the file that cannot be imported."""
    missing = []
    for name in scan_pickle(path).globals:
        try:
            if name.startswith(_SCRIPT):
                _define(name.removeprefix(_SCRIPT), modules)
            elif not name.startswith("__builtin__."):
                pkgutil.resolve_name(name)
        except Exception:
            missing.append(name)
    return missing


def _define(name: str, modules: Path) -> None:
    """Give `__main__` a class of a script, from the module in the folder that defines it."""
    for file in sorted(modules.glob("*.py"))[:_MOST_FILES]:
        if file.stat().st_size > _LONGEST_FILE:
            continue
        tree = ast.parse(file.read_text(errors="replace"))
        if name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}:
            value = getattr(importlib.import_module(file.stem), name)
            setattr(sys.modules["__main__"], name, value)
            return
    raise ImportError(name)


def _limit_memory(path: Path) -> None:
    """Refuse more memory than copies of the file need, where the system can."""
    try:
        import resource
    except ImportError:
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = path.stat().st_size
    most = pages * resource.getpagesize() + _COPIES * size + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    written = _COPIES * size + _LONGEST_FILE
    resource.setrlimit(resource.RLIMIT_FSIZE, (written, written))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(path: Path, results: Path, modules: Path) -> None:
    """Unpickle `path` and write the state and its description into `results`."""
    if sys.platform == "linux":
        _limit_memory(path)
    state, result = unpickle(path, modules)
    if state:
        save_file(state, results / STATE)
    (results / RESULT).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
