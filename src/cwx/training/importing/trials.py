"""Measuring a network on the same images, passed to it in several ways."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cwx.data.class_order import match_outputs, outputs_of
from cwx.functional.accuracy_tests import sign_test
from cwx.networks.eval_mode import eval_mode

# From bytes [n, C, H, W] to the input of a network.
InputFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One way to use a network, and which images it then classifies correctly.

    Attributes:
        changes: what differs from the present way, in words; empty for the present way.
        settings: what gives each change: settings, or other remedies.
        gain: the gain in accuracy from which it counts as far better.
        is_correct: boolean mask ``[n]``.
        predictions: indices of outputs ``[n]``.
        is_measured: boolean mask ``[n]`` of the images that count; others served to choose it.
    """

    changes: tuple[str, ...]
    settings: tuple[str, ...]
    gain: float
    is_correct: Tensor
    predictions: Tensor
    is_measured: Tensor

    @property
    def accuracy(self) -> float:
        """In 0-1, on the measured images."""
        return self.is_correct[self.is_measured].double().mean().item()

    def p_value(self, other: "Trial") -> float:
        """That this is no better than `other`, on the images measured in this."""
        mask = self.is_measured
        return sign_test(other.is_correct[mask], self.is_correct[mask])

    def accuracy_of(self, other: "Trial") -> float:
        """The accuracy of `other` on the images measured in this."""
        return other.is_correct[self.is_measured].double().mean().item()

    def is_far_better(self, other: "Trial") -> bool:
        """Whether the accuracy is higher by `gain`, and the errors fewer by a tenth."""
        before = self.accuracy_of(other)
        return self.accuracy - before >= max(self.gain, 0.1 * (1 - before))


def predict(
    network: nn.Module, images: Tensor, inputs: InputFunction, *, size: int, device: torch.device
) -> Tensor:
    """The output of highest logit for each image: ``[n]``, on the CPU.

    Arguments and errors are those of `measure_logits`.
    """
    return measure_logits(network, images, inputs, size=size, device=device).argmax(1)


@torch.no_grad()
def measure_logits(
    network: nn.Module, images: Tensor, inputs: InputFunction, *, size: int, device: torch.device
) -> Tensor:
    """The logits of each image in eval mode: ``[n, classes]``, on the CPU.

    Args:
        images: bytes ``[n, C, H, W]``.
        inputs: from bytes to the network's input.
        size: images per batch.

    Raises:
        ValueError: a logit is not finite.
    """
    outputs = []
    with eval_mode(network):
        for batch in images.split(size):
            logits = network(inputs(batch.to(device)))
            if not logits.isfinite().all():
                raise ValueError("its outputs for these images are not finite")
            outputs.append(logits.cpu())
    return torch.cat(outputs)


def reordered(
    base: Trial, labels: Tensor, classes: Sequence[str], orders: Mapping[str, Sequence[str]]
) -> Iterator[Trial]:
    """The same predictions with the outputs in each of `orders`, by description.

    Args:
        base: predictions with the outputs in the order of `classes`.
        labels: class indices ``[n]``.
    """
    for description, order in orders.items():
        yield _with_outputs(base, labels, classes, outputs_of(classes, order), description)


def matched(base: Trial, labels: Tensor, classes: Sequence[str]) -> Trial:
    """The same predictions with the order of outputs that fits half of the images best.

    It is measured on the other half.
    """
    fitted = torch.arange(len(labels)) % 2 == 0
    outputs = match_outputs(base.predictions[fitted], labels[fitted], len(classes))
    result = _with_outputs(base, labels, classes, outputs, "in another order")
    return replace(result, is_measured=~fitted)


def _with_outputs(
    base: Trial, labels: Tensor, classes: Sequence[str], outputs: Tensor, order: str
) -> Trial:
    names = [classes[int(index)] for index in outputs.argsort()]
    file = f"data.source.classes=<file>, a text file with a line for each of {list_names(names)}"
    return replace(
        base,
        changes=(*base.changes, f"its outputs {order}"),
        settings=(*base.settings, file),
        is_correct=base.predictions == outputs[labels],
    )


def list_names(names: Sequence[str]) -> str:
    """Up to twenty names; of more the first eight and the last.

    >>> list_names(["a", "b"])
    'a, b'
    """
    return ", ".join(names if len(names) <= 20 else [*names[:8], "…", names[-1]])
