"""The architecture that a user names by the import path of a function or class."""

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cwx.errors import UserError, did_you_mean, printable
from cwx.training.importing.architecture import Architecture
from cwx.training.importing.candidates_external import external_architecture
from cwx.training.importing.weights_file import WeightsFile

# The names under which functions take the number of classes.
_CLASSES = ("num_classes", "n_classes", "classes", "num_class", "nclass", "num_labels")


def named_architecture(target: str, weights: WeightsFile, folder: Path) -> Architecture:
    """The architecture that `target` builds, with as many classes as the weights have.

    Importing the module runs its code: the user has named it.

    Args:
        target: import path such as ``torchvision.models.resnet18``.
        folder: where the module is searched besides the installed packages.

    Raises:
        UserError: there is no such module, function or class, or it builds no network.
    """
    build = _load(target, folder)
    classes = _outputs(weights)
    arguments = dict.fromkeys(_classes_argument(build), classes)
    architecture = external_architecture(
        target, build, target, arguments, classes=classes, channels=3
    )
    with torch.random.fork_rng(devices=[]):
        network = architecture.factory(in_channels=3, image_size=(32, 32), num_classes=classes)
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        return architecture
    likely_size = 32 if first.kernel_size[0] == 3 else 224
    return replace(architecture, channels=first.in_channels, likely_size=likely_size)


def lies_in(target: str, folder: Path) -> bool:
    """Whether the first package of an import path is a file or a folder in `folder`."""
    first = target.partition(".")[0]
    return (folder / f"{first}.py").is_file() or (folder / first).is_dir()


def _load(target: str, folder: Path) -> Callable[..., nn.Module]:
    module_name, _, name = target.rpartition(".")
    path = str(folder.resolve())
    if path not in sys.path:
        # Last, so that it hides no installed module.
        sys.path.append(path)
    try:
        module = importlib.import_module(module_name or target)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"--network {printable(target)} cannot be imported ({error}): give "
            "<module>.<function or class>, of an installed package or of a file in "
            f"{printable(folder)}, or name another folder with --import-path"
        ) from error
    build = getattr(module, name, None)
    if not callable(build):
        names = [n for n, value in vars(module).items() if callable(value) and n[0] != "_"]
        remedy = did_you_mean(name, names, "name a function or class", prefix=f"{module_name}.")
        raise UserError(f"--network {printable(target)} does not exist: {remedy}")
    result: Callable[..., nn.Module] = build
    return result


def _classes_argument(build: Callable[..., Any]) -> list[str]:
    """The parameter that takes the number of classes; empty if there is none."""
    try:
        parameters = inspect.signature(build).parameters
    except (TypeError, ValueError):
        return []
    names = [name for name in _CLASSES if name in parameters]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    # Torchvision's functions pass further arguments on.
    return names[:1] or (["num_classes"] if takes_any else [])


def _outputs(weights: WeightsFile) -> int:
    """The number of outputs: the rows of the last matrix of weights.

    Raises:
        UserError: there is no matrix.
    """
    stated = weights.words.get("num_classes")
    matrices = [t for t in weights.tensors.values() if t.is_floating_point() and t.ndim > 1]
    if not matrices:
        raise UserError(f"{printable(weights.path)} holds no matrix of weights: name another file")
    rows = int(matrices[-1].shape[0])
    return int(stated) if stated in {int(m.shape[0]) for m in matrices} else rows
