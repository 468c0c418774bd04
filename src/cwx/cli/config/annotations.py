"""Types and limits in annotations, read from the source of a signature."""

import ast
import copy
from collections.abc import Mapping, Sequence
from typing import Any

SEQUENCES = frozenset({"list", "List", "Sequence", "Iterable", "tuple", "Tuple"})
MAPPINGS = frozenset({"dict", "Dict", "Mapping"})
SCALARS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "Path": (str,),
    "None": (type(None),),
    # A class, or what YAML reads in place of its name (cwx.functional.class_names).
    "ClassName": (str, int, float, bool, type(None)),
}

# Types of libraries that no plain value has.
OBJECTS = frozenset({"Tensor"})


def alternatives(annotation: ast.expr) -> list[ast.expr]:
    """The members of a union, however it is spelt."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return alternatives(ast.parse(annotation.value, mode="eval").body)
    if isinstance(annotation, ast.BinOp):
        return alternatives(annotation.left) + alternatives(annotation.right)
    if members := arguments_of(annotation, frozenset({"Union"})):
        return [kind for member in members for kind in alternatives(member)]
    if members := arguments_of(annotation, frozenset({"Optional"})):
        return [*alternatives(members[0]), ast.Constant(None)]
    return [annotation]


def _plain(annotation: ast.expr) -> ast.expr:
    """The type in an ``Annotated``, or the annotation itself."""
    if isinstance(annotation, ast.Subscript) and _identifier(annotation) == "Annotated":
        inner = annotation.slice
        return inner.elts[0] if isinstance(inner, ast.Tuple) else inner
    return annotation


def declared_limits(annotation: ast.expr) -> list[str]:
    """The limits in an ``Annotated``: its texts."""
    if _plain(annotation) is annotation or not isinstance(annotation, ast.Subscript):
        return []
    texts = annotation.slice.elts[1:] if isinstance(annotation.slice, ast.Tuple) else []
    return [
        text.value
        for text in texts
        if isinstance(text, ast.Constant) and isinstance(text.value, str)
    ]


class _WithoutLimits(ast.NodeTransformer):
    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        self.generic_visit(node)
        return _plain(node)


def type_text(annotation: ast.expr) -> str:
    """The annotation as source, without limits."""
    return ast.unparse(_WithoutLimits().visit(copy.deepcopy(annotation)))


def type_name(annotation: ast.expr) -> str:
    """The last name of a type, without its arguments."""
    return _identifier(_plain(annotation))


def _identifier(annotation: ast.expr) -> str:
    if isinstance(annotation, ast.Subscript):
        return _identifier(annotation.value)
    if isinstance(annotation, ast.Attribute):
        return annotation.attr
    if isinstance(annotation, ast.Constant):
        return str(annotation.value)
    return annotation.id if isinstance(annotation, ast.Name) else ""


def arguments_of(annotation: ast.expr, names: frozenset[str]) -> list[ast.expr]:
    """The arguments of a generic type if it is one of `names`; otherwise none."""
    annotation = _plain(annotation)
    if not isinstance(annotation, ast.Subscript) or type_name(annotation) not in names:
        return []
    inner = annotation.slice
    return list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]


def is_object(kinds: list[ast.expr]) -> bool:
    """Whether only objects, no plain values, are of these types."""
    plain = {*SCALARS, *SEQUENCES, *MAPPINGS, "Any", "Literal"}
    return not any(type_name(kind) in plain for kind in kinds)


def fits(value: Any, kind: ast.expr, *, strict: bool) -> bool:
    """Whether a plain value is of a type; `strict` refuses types that are not resolved."""
    name = type_name(kind)
    if name in SCALARS:
        of_type = isinstance(value, SCALARS[name])
        return of_type and (name in ("bool", "ClassName") or not isinstance(value, bool))
    if name in OBJECTS:
        return False
    if name == "Literal":
        return any(
            isinstance(a, ast.Constant) and a.value == value
            for a in arguments_of(kind, frozenset({"Literal"}))
        )
    if name in SEQUENCES:
        return isinstance(value, Sequence) and not isinstance(value, str)
    if name in MAPPINGS:
        return isinstance(value, Mapping)
    # Any other name is a class, or a library's type alias that the source does not resolve.
    return name == "Any" or not strict
