"""A second device on the CPU: tensors that say so, and that refuse to meet those of the CPU."""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only

DEVICE = torch.device("meta")
_CPU = torch.device("cpu")
# They read or write tensors of both devices; indices may be on the CPU.
_BETWEEN = ("copy_", "_to_copy", "index", "index_put_", "_index_put_impl_", "_local_scalar_dense")


class Remote(torch.Tensor):
    """A tensor that is on `DEVICE`, as far as it says; `values` are on the CPU."""

    @staticmethod
    def __new__(cls, values):
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), storage_offset=values.storage_offset(),
            dtype=values.dtype, device=DEVICE, requires_grad=values.requires_grad,
        )  # fmt: skip
        tensor.values_on_cpu = values
        return tensor

    def tolist(self):
        return self.cpu().tolist()

    def new_tensor(self, data, *, dtype=None):
        return torch.tensor(data, dtype=dtype or self.dtype).to(DEVICE)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), settings=None):
        return _dispatch(function, args, settings or {})


class _Constants(TorchFunctionMode):
    """`torch.tensor` on `DEVICE`, which reaches no dispatch mode."""

    def __torch_function__(self, function, types, args=(), settings=None):
        settings = settings or {}
        if function in (torch.tensor, torch.as_tensor) and settings.get("device") == DEVICE:
            return function(*args, **{**settings, "device": _CPU}).to(DEVICE)
        return function(*args, **settings)


class SecondDevice(TorchDispatchMode):
    """Within it, tensors can be moved to `DEVICE` and made there."""

    def __enter__(self):
        self.constants = _Constants()
        self.constants.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.constants.__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), settings=None):
        return _dispatch(function, args, settings or {})


def _dispatch(function, args, settings):
    flat, _ = tree_flatten((args, settings))
    tensors = [value for value in flat if isinstance(value, torch.Tensor)]
    remote = [tensor for tensor in tensors if isinstance(tensor, Remote)]
    name = function._schema.name.removeprefix("aten::")
    if remote and name not in _BETWEEN:
        strangers = [t for t in tensors if not isinstance(t, Remote) and t.ndim]
        if strangers:
            raise RuntimeError(
                f"{name}: expected all tensors on one device, got {DEVICE} and {_CPU}"
            )
    device = settings.get("device")
    stays = bool(remote) if device is None else torch.device(device).type == DEVICE.type
    if name == "copy_":
        stays = isinstance(args[0], Remote)
    local_args, local_settings = tree_map_only(Remote, lambda t: t.values_on_cpu, (args, settings))
    if device is not None:
        local_settings["device"] = _CPU
    result = function(*local_args, **local_settings)
    if not stays:
        return result
    wrapped = tree_map_only(torch.Tensor, Remote, result)
    return return_and_correct_aliasing(function, args, settings, wrapped) if remote else wrapped
