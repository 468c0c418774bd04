"""Ways to use a file of weights, measured on images."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cwx.data.class_order import match_outputs, outputs_of, usual_orders
from cwx.functional.accuracy_tests import sign_test
from cwx.training.importing.architecture import Architecture
from cwx.training.importing.inputs import Inputs
from cwx.training.importing.output_form import OutputForm
from cwx.training.importing.trials import measure_logits

# The accuracies of two ways do not differ from this p value on.
_WITHIN_ERROR = 0.05
# Images of a class from which an order of outputs is fitted.
_PER_CLASS = 4
# What a way must gain in accuracy to come before the usual order of classes and of channels.
_ORDER_GAIN, _FITTED_GAIN, _REVERSED_GAIN = 0.01, 0.02, 0.01
_BATCH = 64
# Inverse temperatures.
_SCALES = [2 ** (step / 2) for step in range(-8, 7)]


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to use the weights, measured.

    Attributes:
        architecture: of the network.
        form: of its outputs.
        size, resize: of the images; ``None`` for their own size.
        inputs: from bytes to the network's input.
        order: the class of each output, if it differs from the order of the folders.
        order_name: of the order, in words; empty for the order of the folders.
        is_correct: boolean mask ``[n]``.
        is_measured: boolean mask ``[n]`` of the images that did not serve to choose the order.
        loss: cross-entropy of each image ``[n]``, at the temperature of lowest mean.
        predictions: class indices ``[n]``.
        seconds: of one image's forward pass.
    """

    architecture: Architecture
    form: OutputForm
    size: int | None
    resize: int | None
    inputs: Inputs
    order: tuple[str, ...] | None
    order_name: str
    is_correct: Tensor
    is_measured: Tensor
    loss: Tensor
    predictions: Tensor
    seconds: float

    @property
    def accuracy(self) -> float:
        """In 0-1."""
        return self.is_correct[self.is_measured].double().mean().item()

    @property
    def row(self) -> dict[str, str | float | int]:
        """A row of the table of ways."""
        return {
            "network": self.architecture.description,
            "size": _size_text(self.size, self.resize),
            "normalisation": self.inputs.changes[0],
            "inputs": ", ".join(self.inputs.changes[1:]) or "as they are",
            "classes": self.order_name or "in the order of the folders",
            "accuracy": round(self.accuracy, 4),
            "images": int(self.is_measured.sum()),
        }


@contextmanager
def forward_pass() -> Iterator[None]:
    """Turns what the network raises, on images of another size for example, into a ValueError."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"the network does not take the images ({reason})") from error


def in_orders(
    base: Way,
    log_probabilities: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    *,
    permutes: bool,
) -> Iterator[Way]:
    """The way with its outputs in the order of `classes`, and in other usual orders.

    Args:
        base: without an order and without results.
        log_probabilities: ``[n, classes]``.
        labels: class indices ``[n]``.
        permutes: whether other orders are possible.
    """
    yield _in_order(base, log_probabilities, labels, torch.arange(len(classes)), None, "")
    if not permutes:
        return
    for name, order in usual_orders(classes, None).items():
        yield _in_order(base, log_probabilities, labels, outputs_of(classes, order), order, name)
    if len(labels) >= _PER_CLASS * len(classes):
        is_fitted = torch.arange(len(labels)) % 2 == 0
        predictions = log_probabilities[is_fitted].argmax(1)
        outputs = match_outputs(predictions, labels[is_fitted], len(classes))
        names = tuple(classes[int(i)] for i in outputs.argsort())
        if names != tuple(classes):
            name = "in an order fitted to half of the images"
            way = _in_order(base, log_probabilities, labels, outputs, names, name)
            yield replace(way, is_measured=~is_fitted)


def _in_order(
    base: Way,
    log_probabilities: Tensor,
    labels: Tensor,
    outputs: Tensor,
    order: tuple[str, ...] | None,
    name: str,
) -> Way:
    by_class = log_probabilities[:, outputs]
    predictions = by_class.argmax(1)
    return replace(
        base,
        order=order,
        order_name=name,
        is_correct=predictions == labels,
        loss=_calibrated_loss(by_class, labels),
        predictions=predictions,
    )


def _calibrated_loss(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy ``[n]`` at the temperature of lowest mean.

    At temperature 1, what only lowers the confidence of an overconfident network would count as a
    better way.
    """
    losses = [
        F.cross_entropy(log_probabilities * scale, labels, reduction="none") for scale in _SCALES
    ]
    return min(losses, key=lambda loss: loss.mean().item())


def measure_log_probabilities(
    network: nn.Module, images: Tensor, inputs: Inputs, device: torch.device
) -> Tensor:
    """``[n, classes]``, on the CPU; errors as `measure_logits`."""
    logits = measure_logits(network, images, inputs, size=_BATCH, device=device)
    return logits.float().log_softmax(1)


def rank(way: Way) -> tuple[float, float]:
    """Sorts by accuracy, less what an unusual order must gain, then by loss."""
    return (round(_cost(way) - way.accuracy, 3), way.loss[way.is_measured].mean().item())


def _cost(way: Way) -> float:
    cost = _REVERSED_GAIN if way.inputs.is_reversed else 0.0
    if way.order_name:
        cost += _ORDER_GAIN if bool(way.is_measured.all()) else _FITTED_GAIN
    return cost


def most_likely(ways: Sequence[Way]) -> Way:
    """The way of lowest loss among those whose accuracy is within the error of the first by `rank`.

    The loss tells normalisations apart that hardly change a prediction.
    """
    first = min(ways, key=rank)
    return min(
        (way for way in ways if _cost(way) <= _cost(first) and _is_as_accurate(first, way)),
        key=lambda way: way.loss[way.is_measured].mean().item(),
    )


def _is_as_accurate(best: Way, other: Way) -> bool:
    mask = best.is_measured & other.is_measured
    return sign_test(other.is_correct[mask], best.is_correct[mask]) >= _WITHIN_ERROR


def distinct(ways: Sequence[Way]) -> list[Way]:
    """Without further orders of the same outputs that are less accurate."""
    seen: set[tuple[int, Any, Any, Inputs]] = set()
    result = []
    for way in ways:
        key = (id(way.architecture), way.size, way.resize, way.inputs)
        if key not in seen:
            seen.add(key)
            result.append(way)
    return result


def is_equal(best: Way, other: Way) -> bool:
    """Whether neither accuracy nor loss tells two ways apart."""
    if not _is_as_accurate(best, other):
        return False
    mask = best.is_measured & other.is_measured
    difference = (other.loss - best.loss)[mask].double()
    error = difference.std() / max(1, len(difference)) ** 0.5
    return bool(abs(difference.mean().item()) < 2 * max(error.item(), 1e-12))


def _size_text(size: int | None, resize: int | None) -> str:
    if size is None:
        return "of the images"
    return str(size) if resize is None else f"{size} of {resize}"
