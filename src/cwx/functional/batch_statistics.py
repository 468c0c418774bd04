"""Batch norm over the parts of a batch that several processes hold.

`torch.nn.SyncBatchNorm` does this on GPUs only, and for its own modules only.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class GlobalBatchNorm(TorchFunctionMode):
    """A context in which batch norm takes its statistics over the parts of all processes.

    Every call of `torch.nn.functional.batch_norm` that normalises by the statistics of its input
    normalises by those of the whole batch instead, whichever module calls it; calls that use
    running statistics do not change. The result, the gradients and the running statistics are
    those of one process with the whole batch, but for rounding. Parts may differ in length or be
    empty.

    A collective operation: all processes make the same calls in the same order.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        call = batch_norm if function is F.batch_norm else function
        return call(*args, **(kwargs or {}))


def batch_norm(
    images: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm` with the statistics of all processes.

    Args:
        images: the part of this process ``[b, C, …]``.
        running_mean, running_var: updated in place by the fraction `momentum`; the variance is
            unbiased, over all processes.

    Raises:
        ValueError: a channel has a single value over all processes.
    """
    if not training:
        return F.batch_norm(
            images, running_mean, running_var, weight, bias, training, momentum, eps
        )
    # As torch: statistics in single precision or better.
    values = images.float() if images.element_size() < torch.float32.itemsize else images
    dims = [0, *range(2, values.ndim)]
    shape = [1, -1, *[1] * (values.ndim - 2)]
    channels = values.shape[1]
    count = sum_over_processes(values.new_tensor([values.numel() / channels]))
    if count.item() <= 1:
        raise ValueError(
            "batch norm needs more than one value per channel in training, but a batch holds one "
            f"image of shape {tuple(images.shape[1:])}: choose a recipe.batch_size that leaves no "
            "batch of a single image"
        )
    mean = sum_over_processes(values.sum(dims)) / count
    centred = values - mean.view(shape)
    variance = sum_over_processes(centred.square().sum(dims)) / count
    _update(running_mean, mean, momentum)
    _update(running_var, variance * (count / (count - 1)), momentum)
    result = centred * (variance + eps).rsqrt().view(shape)
    if weight is not None:
        result = result * weight.view(shape)
    if bias is not None:
        result = result + bias.view(shape)
    return result.to(images.dtype)


def _update(running: Tensor | None, statistic: Tensor, momentum: float) -> None:
    if running is not None:
        with torch.no_grad():
            running.mul_(1 - momentum).add_(statistic.detach() * momentum)


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes, differentiable; collective, also in its gradient."""
    return _Sum.apply(tensor)  # type: ignore[no-any-return]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        return _all_reduce(tensor)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        # Each process's sum enters the losses of all processes.
        return _all_reduce(gradients[0])


def _all_reduce(tensor: Tensor) -> Tensor:
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
