"""The classes and functions that a file of weights may name, as they run no code of the file."""

import codecs
import re
from argparse import Namespace
from typing import Any

import numpy as np
import torch


def _harmless() -> list[Any]:
    """What reconstructs numbers and arrays of NumPy, and a namespace of arguments."""
    core = np.array(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    dtypes = [cls for cls in vars(np.dtypes).values() if isinstance(cls, type)]
    former = [
        (function, f"numpy.{package}.multiarray.{name}")
        for package in ("core", "_core")
        for function, name in ((core, "_reconstruct"), (scalar, "scalar"))
    ]
    # Numbers in protocol 2 are bytes in a text.
    return [*former, np.ndarray, np.dtype, *dtypes, codecs.encode, Namespace]


# For `torch.serialization.safe_globals`, beside those that torch itself allows.
HARMLESS = _harmless()


def is_harmless(name: str) -> bool:
    """Whether `load_tensors` reads a file that names this class or function."""
    known = {
        f"{item.__module__}.{item.__qualname__}" for item in HARMLESS if isinstance(item, type)
    }
    return (
        name in known
        or name in {item[1] for item in HARMLESS if isinstance(item, tuple)}
        or name in {"_codecs.encode", "collections.OrderedDict", "collections.Counter"}
        or re.fullmatch(r"torch\.(_utils\._rebuild\w*|\w*(Storage|Size|device)|Tensor)", name)
        is not None
        or name.startswith(("torch.storage.", "torch.nn.parameter.", "torch.serialization."))
        or isinstance(getattr(torch, name.removeprefix("torch."), None), torch.dtype)
    )
