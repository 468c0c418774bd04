"""The parameters of a `_target_`, read from its source without importing it.

A configuration is checked against the signatures that it is instantiated with: a constructor is
its own schema. Reading takes milliseconds; importing torch takes seconds.
"""

import ast
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path


@dataclass(frozen=True)
class Parameter:
    """One argument: its annotation as source, and whether it can be left out."""

    annotation: ast.expr | None
    optional: bool


@dataclass(frozen=True)
class Signature:
    """The arguments of a callable; `open_ended` if it has ``**kwargs``."""

    parameters: Mapping[str, Parameter]
    open_ended: bool


class UnknownTargetError(LookupError):
    """No such module or name."""


def signature(target: str) -> Signature | None:
    """The signature of the function or class at a dotted path; ``None`` if it has no source.

    Raises:
        UnknownTargetError: the module does not exist, or a module of cwx has no such name.
    """
    source = _find(target)
    if source is None:
        return None
    definition, module = source
    if isinstance(definition, ast.ClassDef):
        return _constructor(definition, module)
    return _arguments(definition.args, skip=0)


_Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class _Module:
    name: str
    file: Path
    body: tuple[ast.stmt, ...]


def _find(target: str, depth: int = 0) -> tuple[_Definition, _Module] | None:
    module, rest = _module(target)
    if depth > 8 or len(rest) != 1:
        return None
    for statement in _statements(module.body):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == rest[0]:
            return statement, module
    for statement in _statements(module.body):
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                if (alias.asname or alias.name) == rest[0]:
                    return _find(f"{_absolute(statement, module)}.{alias.name}", depth + 1)
                if alias.name == "*" and not rest[0].startswith("_"):
                    source = _find(f"{_absolute(statement, module)}.{rest[0]}", depth + 1)
                    if source is not None:
                        return source
    if target.split(".")[0] == __name__.split(".")[0]:
        raise UnknownTargetError(f"{module.name} has no {rest[0]}")
    return None


def _statements(body: tuple[ast.stmt, ...]) -> Iterator[ast.stmt]:
    """Top-level statements, also those under an `if` or a `try`."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try):
            yield from _statements(tuple(statement.body))


def _absolute(statement: ast.ImportFrom, module: _Module) -> str:
    if not statement.level:
        return statement.module or ""
    parts = module.name.split(".")
    # In a package's __init__, one dot is the package itself.
    drop = statement.level - (module.file.name == "__init__.py")
    base = parts[: len(parts) - drop]
    return ".".join([*base, *(statement.module.split(".") if statement.module else [])])


def _module(target: str) -> tuple[_Module, list[str]]:
    """The deepest module in the dotted path `target`, and the names after it."""
    first, *rest = target.split(".")
    spec = PathFinder.find_spec(first)
    if spec is None or spec.origin is None:
        raise UnknownTargetError(f"there is no package {first}")
    file, name = Path(spec.origin), first
    while rest and file.name == "__init__.py":
        folder = file.parent
        for candidate in (folder / rest[0] / "__init__.py", folder / f"{rest[0]}.py"):
            if candidate.exists():
                file, name = candidate, f"{name}.{rest.pop(0)}"
                break
        else:
            break
    if len(rest) > 1 and first == __name__.split(".")[0]:
        raise UnknownTargetError(f"there is no module {name}.{rest[0]}")
    return _Module(name, file, _parse(file)), rest


@functools.cache
def _parse(file: Path) -> tuple[ast.stmt, ...]:
    return tuple(ast.parse(file.read_text(encoding="utf-8")).body) if file.suffix == ".py" else ()


def _constructor(definition: ast.ClassDef, module: _Module) -> Signature | None:
    for statement in definition.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return _arguments(statement.args, skip=1)
    if any(_is_dataclass(decorator) for decorator in definition.decorator_list):
        return _fields(definition)
    for base in definition.bases:
        source = _find(f"{module.name}.{base.id}") if isinstance(base, ast.Name) else None
        if source is not None and isinstance(source[0], ast.ClassDef):
            inherited = _constructor(source[0], source[1])
            if inherited is not None:
                return inherited
    return None if definition.bases else Signature({}, open_ended=False)


def _is_dataclass(decorator: ast.expr) -> bool:
    function = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(function, ast.Name) and function.id == "dataclass"


def _fields(definition: ast.ClassDef) -> Signature:
    """The signature of a dataclass, from its own fields."""
    parameters = {
        statement.target.id: Parameter(statement.annotation, statement.value is not None)
        for statement in definition.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }
    return Signature(parameters, open_ended=False)


def _arguments(arguments: ast.arguments, *, skip: int) -> Signature:
    positional = [*arguments.posonlyargs, *arguments.args]
    first_default = len(positional) - len(arguments.defaults)
    parameters = {
        argument.arg: Parameter(argument.annotation, position >= first_default)
        for position, argument in enumerate(positional)
        if position >= skip
    }
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        parameters[argument.arg] = Parameter(argument.annotation, default is not None)
    return Signature(parameters, open_ended=arguments.kwarg is not None)
