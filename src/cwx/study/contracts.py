"""Checks of the interfaces of user-defined networks, methods and evaluations.

Built-in parts pass the same checks; `docs/extend.md` describes each interface.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import PurePath
from typing import Any, get_args

import torch
from torch import Tensor, nn

from cwx.data.datamodule import ImageData
from cwx.evaluations.outcome import Outcome
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import MethodOutput

METHOD = ("subject", "seed", "stage")
NETWORK = ("in_channels", "image_size", "num_classes")
# Attributes that a study needs to fit a method (`cwx.training.stages.Fittable`).
_FIT_ATTRIBUTES = ("epochs", "batches")


def check_builds(setting: str, build: Callable[..., Any], keywords: tuple[str, ...]) -> None:
    """Refuse a callable that does not accept its settings and these keywords.

    Args:
        setting: the name of the setting that holds the callable.
        keywords: the keyword arguments that a study adds to the settings.

    Raises:
        ValueError: the callable does not accept a keyword, or a setting is missing.
    """
    try:
        signature = inspect.signature(build)
    except ValueError:
        # Callables written in C may have no signature.
        return
    try:
        signature.bind(**dict.fromkeys(keywords))
    except TypeError as error:
        remedy = "; for a network without these arguments choose network=external"
        raise ValueError(
            f"{setting} ({_name(build)}) cannot be built ({error}): it must accept "
            f"{', '.join(keywords)} and its settings, all by keyword"
            f"{remedy if keywords == NETWORK else ''}"
        ) from error


def check_explains(name: str, build: Callable[..., Any]) -> None:
    """Refuse a method that cannot be built or has no `explanations()`, before experts are trained.

    Raises:
        ValueError: names the missing part.
    """
    setting, factory = f"method.{name}", getattr(build, "func", build)
    check_builds(setting, build, METHOD)
    # The return type of a function is not known before the call.
    if inspect.isclass(factory) and not hasattr(factory, "explanations"):
        raise ValueError(
            f"{setting} ({factory.__name__}) has no explanations(): define it to return one of "
            f"{_output_types()}"
        )


def check_optimizer(setting: str, build: Callable[..., Any]) -> None:
    """Refuse invalid settings of an optimizer and its schedule before training.

    Args:
        setting: the name of the setting that holds the optimizer's owner.
        build: builds the owner; it passes if it has no setting ``optimizer``. The setting
            ``schedule``, if it has one, is built with the optimizer.

    Raises:
        ValueError: names the settings of the optimizer or of the schedule.
    """
    owner = getattr(build, "keywords", {})
    optimizer, schedule = owner.get("optimizer"), owner.get("schedule")
    if not isinstance(optimizer, partial):
        return
    stepped = _build(f"{setting}.optimizer", optimizer, [nn.Parameter(torch.zeros(1))])
    if isinstance(schedule, partial):
        _build(f"{setting}.schedule", schedule, stepped)


def _build(setting: str, build: partial[Any], argument: Any) -> Any:
    try:
        return build(argument)
    except (ArithmeticError, ValueError, TypeError, LookupError) as error:
        settings = ", ".join(f"{name}={value}" for name, value in build.keywords.items())
        raise ValueError(
            f"{setting} ({_name(build)}) does not accept {settings} ({error}): correct {setting}"
        ) from error


def check_fit_attributes(name: str, method: Any) -> None:
    """Refuse a method with a `training_step` but without `batches` or `epochs`.

    Raises:
        ValueError: names the missing attributes.
    """
    missing = [part for part in _FIT_ATTRIBUTES if not hasattr(method, part)]
    if hasattr(method, "training_step") and missing:
        raise ValueError(
            f"method.{name} ({type(method).__name__}) has a training_step, but no "
            f"{' and no '.join(missing)}: set self.batches to a LightningDataModule "
            "(cwx.data.step_loaders.Steps for steps without data) and self.epochs to the number "
            "of epochs"
        )


def check_method_output(name: str, output: Any, data: ImageData) -> None:
    """Refuse invalid explanations.

    Raises:
        ValueError: the type is not `MethodOutput`, a number is not finite, or images do not have
            the size and classes of the data.
    """
    source = f"explanations() of method.{name}"
    if not isinstance(output, get_args(MethodOutput)):
        raise ValueError(
            f"{source} is of type {type(output).__name__}: return one of {_output_types()}"
        )
    check_finite(name, output)
    if not isinstance(output, Explanations):
        return
    images, labels = output.images, output.labels
    expected = (len(labels), *data.image_shape)
    if tuple(images.shape) != expected or not images.is_floating_point():
        raise ValueError(
            f"{source} has images {_shape(images)} of {images.dtype} for {len(labels)} labels: "
            f"give normalised floats {list(expected)}"
        )
    outside = (labels < 0) | (labels >= len(data.classes))
    if labels.is_floating_point() or labels.ndim != 1 or outside.any():
        raise ValueError(
            f"{source} has labels {_shape(labels)} of {labels.dtype}: give one class index in "
            f"0-{len(data.classes) - 1} for each image"
        )


def check_finite(name: str, output: MethodOutput) -> None:
    """Refuse explanations with a number that is not finite: metrics of them would be meaningless.

    Raises:
        ValueError: names the attribute.
    """
    for attribute, value in vars(output).items():
        if isinstance(value, Tensor) and not value.isfinite().all():
            raise ValueError(
                f"the {attribute} of method.{name} are not finite numbers: it diverged, or the "
                f"network that it explains did; lower the step size of method.{name} or the "
                "learning rate of the network's training"
            )


def check_outcome(name: str, outcome: Any) -> None:
    """Refuse the result of an evaluation that is not an `Outcome`, or has an empty table, or a file
    that is not in a folder inside the run's.

    Raises:
        ValueError: names the evaluation.
    """
    if not isinstance(outcome, Outcome):
        raise ValueError(
            f"evaluation.{name} returned a {type(outcome).__name__}: return a "
            "cwx.evaluations.outcome.Outcome of metrics, tables and figures"
        )
    if empty := [table for table, rows in outcome.tables.items() if not rows]:
        raise ValueError(
            f"evaluation.{name} returned the table {empty[0]!r} without rows: leave it out"
        )
    for path in map(PurePath, outcome.files):
        # The run's own files lie directly in its folder.
        if path.is_absolute() or ".." in path.parts or len(path.parts) < 2:
            raise ValueError(
                f"evaluation.{name} returned the file {str(path)!r}: give a path in a folder of "
                f"the run, such as {name}/{path.name or 'file'}"
            )


def check_distinct(outcomes: Mapping[str, Outcome]) -> None:
    """Refuse metrics, tables, figures and files that two parts of a study write under one name.

    Args:
        outcomes: by the setting of the part, such as ``evaluation.fidelity``.

    Raises:
        ValueError: names the two parts and what both write.
    """
    for kind in ("metrics", "tables", "figures", "files"):
        writers: dict[str, str] = {}
        for part, outcome in outcomes.items():
            for name in getattr(outcome, kind):
                if name in writers:
                    raise ValueError(
                        f"{writers[name]} and {part} both write {kind} called {name!r}, and "
                        "one would replace the other: begin the names of each with the part's name"
                    )
                writers[name] = part


def _output_types() -> str:
    return ", ".join(f"{kind.__module__}.{kind.__name__}" for kind in get_args(MethodOutput))


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)


def _name(build: Callable[..., Any]) -> str:
    factory = getattr(build, "func", build)
    return getattr(factory, "__qualname__", str(factory))
