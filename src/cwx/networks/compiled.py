"""Training networks through `torch.compile`, checked against eager execution."""

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# The largest relative error of a gradient. A different rounding of a value near a ReLU's kink
# changes a gradient by up to 1e-3; autocast to 16 bits by more.
TOLERANCE, TOLERANCE_16_BIT = 1e-2, 1e-1


def compile_networks(
    networks: Sequence[nn.Module], mode: str, images: Tensor, labels: Tensor
) -> list[nn.Module]:
    """Compiled forms of `networks`, which share their parameters and buffers.

    The gradient of the mean cross-entropy of a copy of the first network is compared with that of
    eager execution. If compilation fails or they differ, a warning says so, and the networks
    themselves are returned.

    Args:
        networks: of one architecture, in training mode.
        mode: of `torch.compile`.
        images, labels: a training batch ``[n, C, H, W]``, ``[n]``.
    """
    try:
        with warnings.catch_warnings():
            # Compilers warn about their internals.
            warnings.simplefilter("ignore")
            eager, compiled = (
                _gradient(copy.deepcopy(networks[0]), images, labels, mode=choice)
                for choice in (None, mode)
            )
        error = ((compiled - eager).norm() / eager.norm().clamp_min(1e-30)).item()
    except Exception as failure:
        # Backends raise exceptions of any type: no compiler, an unsupported operation, …
        reason = f"fails ({type(failure).__name__}: {str(failure).splitlines()[0][:200]})"
    else:
        reduced = torch.is_autocast_enabled(images.device.type)
        tolerance = TOLERANCE_16_BIT if reduced else TOLERANCE
        # Also false for NaN.
        if error <= tolerance:
            return [_compile(network, mode) for network in networks]
        reason = f"has a relative error of {error:.1e}, more than {tolerance:.0e}"
    warnings.warn(f"recipe.compile={mode} {reason}: continuing without", stacklevel=2)
    return list(networks)


def _compile(network: nn.Module, mode: str) -> nn.Module:
    # With the random numbers of eager execution, for dropout.
    options: Any = {"fallback_random": True}
    if mode != "default":
        options |= torch._inductor.list_mode_options(mode)
    compiled: Any = torch.compile(network, options=options, dynamic=False)
    return compiled  # type: ignore[no-any-return]


def _gradient(network: nn.Module, images: Tensor, labels: Tensor, *, mode: str | None) -> Tensor:
    forward = network if mode is None else _compile(network, mode)
    parameters = [p for p in network.parameters() if p.requires_grad]
    with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
        torch.manual_seed(0)
        loss = F.cross_entropy(forward(images), labels)
        gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return torch.cat([gradient.reshape(-1) for gradient in gradients])
