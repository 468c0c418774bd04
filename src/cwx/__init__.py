"""What an image classifier has learned about each class, in pictures and numbers.

For notebooks and scripts:

- `cwx.open_run`, `cwx.open_sweep`: metrics, explanations and figures of what was run.
- `cwx.functional`: the papers' mathematics by topic, such as ``cwx.functional.unroll``.

Nothing is imported before it is used, so that the command line answers at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cwx import functional as functional
    from cwx.notebook import open_run as open_run
    from cwx.notebook import open_sweep as open_sweep

__all__ = ["functional", "open_run", "open_sweep"]


def __getattr__(name: str) -> Any:
    if name == "functional":
        return importlib.import_module("cwx.functional")
    if name in __all__:
        return getattr(importlib.import_module("cwx.notebook"), name)
    raise AttributeError(f"module 'cwx' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
