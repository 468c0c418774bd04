"""Reading and changing units in a forward pass, at the place of `UnitLayer`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cwx.networks.layers import find_layer
from cwx.networks.unit_layers import UnitLayer

# From the tensor at the place, units on the second axis, to the value to return.
Read = Callable[[Tensor], Any]
# From images to the units' outputs by layer name.
Outputs = Callable[[Tensor], Mapping[str, Any]]
# From the tensor at the place, units on the second axis, to its replacement; None: no change.
Change = Callable[[Tensor], Tensor | None]


@contextmanager
def unit_outputs(
    network: nn.Module,
    layers: Sequence[UnitLayer],
    read: Read | Mapping[str, Read] = torch.clone,
) -> Iterator[Outputs]:
    """Context manager: a function from images to the units of several layers, in one pass.

    For a layer that runs several times, the last run counts. The name ``""`` is that of the
    network, whose output is the logits.

    Args:
        network: runs in its current mode (train or eval).
        layers: to read.
        read: computes the value to return from the tensor at the place, with the units on the
            second axis ``[n, units, …]``; a mapping has one for each layer, by name. It runs before
            the next function, because an in-place function may overwrite the tensor.

    Raises:
        ValueError: the network has no such layer or, on a call, does not reach its place.
    """
    captured: dict[str, Any] = {}

    def reader(name: str) -> Change:
        of_layer = read[name] if isinstance(read, Mapping) else read

        def change(output: Tensor) -> None:
            value = of_layer(output)
            # The activations of units without maps are the tensor itself.
            captured[name] = value.clone() if value is output else value

        return change

    def outputs(images: Tensor) -> Mapping[str, Any]:
        captured.clear()
        with places.of(len(images)):
            network(images)
        if missing := [layer.name for layer in layers if layer.name not in captured]:
            raise ValueError(
                f"the network does not run its layer {missing[0]!r}, whose output is needed: "
                "name another"
            )
        result = dict(captured)
        captured.clear()
        return result

    places = _Places([(layer, reader(layer.name)) for layer in layers])
    with places.attached(network):
        yield outputs


@contextmanager
def changed_units(network: nn.Module, layer: UnitLayer, change: Change) -> Iterator[None]:
    """Context manager: every pass gives the units of a layer to `change`, and takes its result."""
    places = _Places([(layer, change)])
    with places.attached(network), places:
        yield


class _Places(TorchFunctionMode):
    """Follows the outputs of layers to the places of their units."""

    def __init__(self, changes: Sequence[tuple[UnitLayer, Change]]) -> None:
        super().__init__()
        self._changes = changes
        # By index of a layer: the tensor on the way, and how many functions it has passed.
        self._ways: dict[int, tuple[Tensor, int]] = {}
        self._is_changing = False
        self._images: int | None = None

    @contextmanager
    def of(self, images: int) -> Iterator[None]:
        """Context manager: a pass of so many images."""
        self._images = images
        # Without a way to follow, hooks alone reach every place, and cost nothing.
        with self if any(layer.functions for layer, _ in self._changes) else nullcontext():
            yield

    @contextmanager
    def attached(self, network: nn.Module) -> Iterator[None]:
        """Context manager: watches the network's layers."""
        with ExitStack() as hooks:
            for index, (layer, _) in enumerate(self._changes):
                module = find_layer(network, layer.name)

                def start(_m: nn.Module, _i: Any, output: Any, index: int = index) -> Any:
                    first = output[0] if isinstance(output, tuple) else output
                    changed = self._step(index, first, 0)
                    if changed is first:
                        return None
                    return (changed, *output[1:]) if isinstance(output, tuple) else changed

                hooks.callback(module.register_forward_hook(start).remove)
            hooks.callback(self._ways.clear)
            yield

    def _step(self, index: int, output: Tensor, passed: int) -> Tensor:
        """Note that a layer's units are in `output`; at their place, change them."""
        layer, change = self._changes[index]
        if passed < len(layer.functions):
            self._ways[index] = output, passed
            return output
        self._ways.pop(index, None)
        if self._images is not None and len(output) != self._images:
            raise ValueError(
                f"the layer {layer.name!r} gives {len(output)} rows for {self._images} images: "
                "name a layer whose first axis is that of the images"
            )
        # The functions of `change` are none of the network's.
        self._is_changing = True
        try:
            changed = change(output.movedim(layer.axis, 1))
            return output if changed is None else changed.movedim(1, layer.axis)
        finally:
            self._is_changing = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[Any],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not self._ways or self._is_changing:
            return result
        name = getattr(func, "__name__", "")
        for index, (tensor, passed) in list(self._ways.items()):
            expected = self._changes[index][0].functions[passed]
            if name == expected and any(a is tensor for a in (*args, *kwargs.values())):
                changed = self._step(index, result, passed + 1)
                if changed is not result and result is tensor and changed.shape == result.shape:
                    # The network may go on with its in-place function's argument.
                    result.copy_(changed)
                    changed = result
                result = changed
        return result
