"""The papers' formulas as functions of tensors, one module per topic. Imports torch only.

A module is imported on first use: ``cwx.functional.unroll``, ``cwx.functional.attacks`` …
"""

import importlib
from pkgutil import iter_modules
from types import ModuleType

__all__ = sorted(module.name for module in iter_modules(__path__))


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
