"""The user's own code that a training runs, as a part of its identity in the store.

Settings name functions and classes by their paths. Those of cwx and of installed packages are known
by these paths; a file of the user's own may be edited under the same path.
"""

import ast
import functools
import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import cwx

_PATHS = ("stdlib", "platstdlib", "purelib", "platlib")
_INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in _PATHS)
_CWX = Path(str(cwx.__file__)).resolve().parent


def own_code(settings: Any) -> dict[str, str]:
    """Digests of the user's own modules that settings name, by the modules' names.

    Of a module and of all modules beside it that it imports, without comments and formatting.

    Args:
        settings: resolved settings, with ``_target_`` at any depth.
    """
    digests = {}
    for target in sorted({*_targets(settings)}):
        found = _own_module(target)
        if found is not None:
            name, file = found
            root = file.parents[name.count(".") + (file.stem == "__init__")]
            digests[name] = code_digest(file, root)
    return digests


def _targets(settings: Any) -> Iterator[str]:
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            if key == "_target_" and isinstance(value, str):
                yield value
            else:
                yield from _targets(value)
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from _targets(value)


def _own_module(target: str) -> tuple[str, Path] | None:
    """The module of a function or class, and its file; ``None`` if it is not the user's own."""
    parts = target.split(".")
    found = None
    for count in range(1, len(parts)):
        name = ".".join(parts[:count])
        spec = _spec(name)
        if spec is None:
            break
        if spec.origin is not None and spec.origin.endswith(".py"):
            found = name, Path(spec.origin).resolve()
        if found is not None and count == 1 and not _is_own(found[1]):
            # An installed package is not imported to look for its modules.
            return None
    return found if found is not None and _is_own(found[1]) else None


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        # `name` is no module, but an attribute of one.
        return None


def _is_own(file: Path) -> bool:
    return not any(file.is_relative_to(folder) for folder in (*_INSTALLED, _CWX))


@functools.cache
def code_digest(file: Path, root: Path) -> str:
    """A digest of the code in a file and in all files below `root` that it imports.

    It is read once in a process, whose imported modules do not change with their files either.
    """
    codes: dict[str, str] = {}
    waiting = [file]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(root).as_posix()
        if name in codes:
            continue
        tree = ast.parse(path.read_bytes(), str(path))
        codes[name] = ast.dump(tree)
        waiting += _imported(tree, path, root)
    content = "\n".join(f"{name} {code}" for name, code in sorted(codes.items()))
    return hashlib.sha256(content.encode()).hexdigest()


def _imported(tree: ast.AST, path: Path, root: Path) -> list[Path]:
    """The files below `root` that a module imports."""
    names: list[tuple[Path, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(root, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = path.parents[node.level - 1] if node.level else root
            module = node.module or ""
            # Each name may be a module of the package.
            names += [(above, module)] if module else []
            names += [(above, f"{module}.{alias.name}".lstrip(".")) for alias in node.names]
    files = []
    for above, name in names:
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            stem = above.joinpath(*parts[:count])
            files += [f for f in (stem.with_suffix(".py"), stem / "__init__.py") if f.is_file()]
    return [f.resolve() for f in files if f.resolve().is_relative_to(root)]
