"""What users bring to a study: refused, with the remedy, where it is not what a study takes.

Parts of our own pass as well; `docs/extend.md` tells what each has to be.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor, nn

from cwx.data.datamodule import ImageData
from cwx.evaluations.outcome import Outcome
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import MethodOutput

METHOD = ("subject", "seed", "stage")
NETWORK = ("in_channels", "image_size", "num_classes")
# By which a study fits a method (`cwx.training.stages.Fitted`).
_FITTED = ("epochs", "batches")


def check_builds(place: str, build: Callable[..., Any], given: tuple[str, ...]) -> None:
    """Refuse what cannot be called with its settings and these keywords, before it is.

    Args:
        place: the setting that names it.
        given: what a study adds to its settings.

    Raises:
        ValueError: it takes one of them under no name, or lacks a setting.
    """
    try:
        signature = inspect.signature(build)
    except ValueError:
        # Of what is written in C, only a call tells.
        return
    try:
        signature.bind(**dict.fromkeys(given))
    except TypeError as error:
        remedy = "; a network that takes no such arguments is for network=external"
        raise ValueError(
            f"{place} ({_name(build)}) cannot be built ({error}): it is called with "
            f"{', '.join(given)} and its settings, all by keyword"
            f"{remedy if given == NETWORK else ''}"
        ) from error


def check_explains(name: str, build: Callable[..., Any]) -> None:
    """Refuse a method that could not be built, or would leave nothing, before experts are trained.

    Raises:
        ValueError: with what it lacks.
    """
    place, made = f"method.{name}", getattr(build, "func", build)
    check_builds(place, build, METHOD)
    # What a function returns is not known before it is called.
    if inspect.isclass(made) and not hasattr(made, "explanations"):
        raise ValueError(
            f"{place} ({made.__name__}) has no explanations(): give it one that returns what it "
            f"leaves, one of {_kinds()}"
        )


def check_optimizer(place: str, build: Callable[..., Any]) -> None:
    """Refuse settings that an optimizer refuses, before it has anything to optimise.

    Args:
        place: the setting of the part that it belongs to.
        build: the part; one without the setting ``optimizer`` passes.

    Raises:
        ValueError: with those settings.
    """
    optimizer = getattr(build, "keywords", {}).get("optimizer")
    if not isinstance(optimizer, partial):
        return
    try:
        optimizer([nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError) as error:
        given = ", ".join(f"{name}={value}" for name, value in optimizer.keywords.items())
        raise ValueError(
            f"{place}.optimizer ({_name(optimizer)}) does not take {given} ({error}): set others"
        ) from error


def check_fitted(name: str, method: Any) -> None:
    """Refuse a method that trains and does not say on what, or for how long.

    Raises:
        ValueError: with what it lacks.
    """
    lacking = [part for part in _FITTED if not hasattr(method, part)]
    if hasattr(method, "training_step") and lacking:
        raise ValueError(
            f"method.{name} ({type(method).__name__}) has a training_step, but no "
            f"{' and no '.join(lacking)}: set self.batches to the LightningDataModule that it is "
            "fitted on (cwx.data.step_loaders.Steps for steps without data) and self.epochs to how "
            "many of its epochs"
        )


def check_left(name: str, found: Any, data: ImageData) -> None:
    """Refuse what a method leaves if nobody could read it.

    Raises:
        ValueError: it is no explanation, or its images are not of the data's size and classes.
    """
    place = f"explanations() of method.{name}"
    if not isinstance(found, get_args(MethodOutput)):
        raise ValueError(f"{place} is of type {type(found).__name__}: return one of {_kinds()}")
    if not isinstance(found, Explanations):
        return
    images, labels = found.images, found.labels
    expected = (len(labels), *data.image_shape)
    if tuple(images.shape) != expected or not images.is_floating_point():
        raise ValueError(
            f"{place} has images {_shape(images)} of {images.dtype} for {len(labels)} labels: "
            f"give normalised floats {list(expected)}"
        )
    outside = (labels < 0) | (labels >= len(data.classes))
    if labels.is_floating_point() or labels.ndim != 1 or outside.any():
        raise ValueError(
            f"{place} has labels {_shape(labels)} of {labels.dtype}: give one class index in "
            f"0-{len(data.classes) - 1} for each image"
        )


def check_measured(name: str, outcome: Any) -> None:
    """Refuse what an evaluation returns if it is none.

    Raises:
        ValueError: with what to return.
    """
    if not isinstance(outcome, Outcome):
        raise ValueError(
            f"evaluation.{name} returned a {type(outcome).__name__}: return a "
            "cwx.evaluations.outcome.Outcome of numbers, tables and figures"
        )
    if empty := [table for table, rows in outcome.tables.items() if not rows]:
        raise ValueError(
            f"evaluation.{name} returned the table {empty[0]!r} without a row: leave it out"
        )


def _kinds() -> str:
    return ", ".join(f"{kind.__module__}.{kind.__name__}" for kind in get_args(MethodOutput))


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)


def _name(build: Callable[..., Any]) -> str:
    made = getattr(build, "func", build)
    return getattr(made, "__qualname__", str(made))
