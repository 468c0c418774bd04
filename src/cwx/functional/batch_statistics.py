"""Batch norm over the parts of a batch that several processes hold.

`torch.nn.SyncBatchNorm` does this on GPUs only, and for its own modules only.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import once_differentiable
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


# Compilers warn about exchanges between processes, and split the network there anyway.
@torch.compiler.disable  # type: ignore[untyped-decorator]
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

    Its gradient cannot be differentiated again.

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
    result, mean, variance, count = _Normalization.apply(values, weight, bias, eps)
    _update(running_mean, mean, momentum)
    _update(running_var, variance * (count / (count - 1)), momentum)
    return result.to(images.dtype)  # type: ignore[no-any-return]


def _update(running: Tensor | None, statistic: Tensor, momentum: float) -> None:
    if running is not None:
        running.mul_(1 - momentum).add_(statistic * momentum)


class _Normalization(torch.autograd.Function):
    """Normalises the part of this process, with an exchange forward and another one backward.

    Returns the part; and the mean ``[C]``, the biased variance ``[C]`` and the number ``[]`` of the
    values of a channel in the whole batch, which have no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, variance, count = _moments_over_processes(values)
        if count.item() <= 1:
            raise ValueError(
                "batch norm needs more than one value per channel in training, but a batch holds "
                f"one image of shape {tuple(values.shape[1:])}: choose a recipe.batch_size that "
                "leaves no batch of a single image"
            )
        result = F.batch_norm(values, mean, variance, weight, bias, eps=eps)
        ctx.save_for_backward(values, weight, mean, variance, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, count)
        return result, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, mean, variance, count = ctx.saved_tensors
        to_values, to_weight, to_bias = _gradients(
            gradient, values, weight, mean, variance, ctx.eps
        )
        # The statistics depend on the values of all processes. The gradient through them is affine
        # in the normalised values.
        scale = (variance + ctx.eps).rsqrt()
        if weight is not None:
            scale = weight * scale
        mean_to_weight, mean_to_bias = _all_reduce(torch.stack([to_weight, to_bias])) / count
        to_values -= F.batch_norm(
            values, mean, variance, scale * mean_to_weight, scale * mean_to_bias, eps=ctx.eps
        )
        _, has_weight, has_bias, _ = ctx.needs_input_grad
        return to_values, to_weight if has_weight else None, to_bias if has_bias else None, None


def _moments_over_processes(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean, the biased variance and the number of the values of a channel."""
    own = values.new_zeros(3, values.shape[1])
    if values.numel():
        # Means and variances, not sums of squares, which cancel.
        own[0], own[1] = torch.ops.aten.batch_norm_update_stats(values, None, None, 0.0)
        own[2] = values.numel() / values.shape[1]
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    means, variances, counts = torch.stack(parts).unbind(1)
    count = counts.sum(0)
    mean = (means * counts).sum(0) / count
    squares = (variances + (means - mean).square()) * counts
    return mean, squares.sum(0) / count, count[0]


def _gradients(
    gradient: Tensor,
    values: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Those of the values, the weight and the bias, as if the statistics were constants."""
    if not values.numel():
        zeros = torch.zeros_like(mean)
        return torch.zeros_like(values), zeros, zeros
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
        gradient, values, weight, mean, variance, None, None, False, eps, [True, True, True]
    )
    return gradients


def _all_reduce(tensor: Tensor) -> Tensor:
    dist.all_reduce(tensor)
    return tensor
