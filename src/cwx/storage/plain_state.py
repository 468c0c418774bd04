"""The state of a network under its plain names, without the wrappers of parallel training."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cwx.errors import UserError

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
# The attribute in which `torch.compile` keeps the network.
_COMPILED = "_orig_mod"


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and persistent buffers, on the CPU, by name.

    The names are those of the network without DataParallel, DistributedDataParallel and
    ``torch.compile``, which may wrap it or parts of it. Floats of 64 bits become floats of 32.

    >>> list(plain_state(nn.DataParallel(nn.Linear(2, 2))))
    ['weight', 'bias']

    Raises:
        UserError: a tensor is not plain, or a weight is not finite.
    """
    wrappers = _wrappers(network)
    return {
        name: _copy(name, value)
        for name, value in (
            (_plain_name(key, wrappers), value) for key, value in network.state_dict().items()
        )
    }


def _wrappers(network: nn.Module) -> dict[str, str]:
    """The name of the wrapped child, by the path of each wrapper."""
    wrappers = {}
    for path, module in network.named_modules():
        if isinstance(module, _PARALLEL):
            wrappers[path] = "module"
        elif _COMPILED in module._modules:
            wrappers[path] = _COMPILED
    return wrappers


def _plain_name(name: str, wrappers: Mapping[str, str]) -> str:
    parts = name.split(".")
    return ".".join(
        part for index, part in enumerate(parts) if wrappers.get(".".join(parts[:index])) != part
    )


def _copy(name: str, value: object) -> Tensor:
    is_plain = (
        isinstance(value, Tensor)
        and not isinstance(value, nn.UninitializedParameter | nn.UninitializedBuffer)
        and type(value.detach()) is Tensor
        and value.layout is torch.strided
        and not (value.is_meta or value.is_quantized or value.is_complex() or value.is_nested)
    )
    if not is_plain:
        kind = type(value).__name__
        raise UserError(
            f"{name} is {kind}, not a plain tensor of real numbers: record the network whole and "
            "unquantised, and gather the weights of FSDP first"
        )
    assert isinstance(value, Tensor)
    dtype = torch.float32 if value.dtype is torch.float64 else value.dtype
    copy = value.detach().to("cpu", dtype, copy=True).contiguous()
    if not copy.isfinite().all():
        raise UserError(
            f"{name} is not finite: the training has diverged; lower its learning rate, and record "
            "it into another folder"
        )
    return copy
