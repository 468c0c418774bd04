"""Layer names of a network: convolutions, the last spatial layer, the features."""

from collections.abc import Sequence

from torch import Tensor, nn

from cwx.errors import closest
from cwx.networks.forward_pass import Call, ForwardPass, forward_pass, unique_names


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """The module of that name.

    Raises:
        ValueError: the network has no such module.
    """
    modules: dict[str, nn.Module] = dict(network.named_modules())
    if name in modules:
        return modules[name]
    near = closest(name, filter(None, modules))
    raise ValueError(
        f"{type(network).__name__} has no layer {name!r}: the nearest are {', '.join(near)}"
    )


def convolutional_layers(network: nn.Module, image_shape: Sequence[int]) -> list[str]:
    """For each convolution, the name of the layer to read its channels from; in execution order.

    It is the normalisation that takes the convolution's output directly, because that may change
    the sign; otherwise the convolution itself. A following ReLU would not change which images have
    the highest spatial maximum.

    Args:
        image_shape: (C, H, W) of the network's input.

    Raises:
        ValueError: layers on tokens, such as those of a transformer, follow the last convolution.
    """
    forward = forward_pass(network, image_shape)
    # A container finishes between a convolution and its norm; skip it. A parametrised convolution
    # has children too.
    calls = [call for call in forward.calls if call.convolves or call.is_leaf]
    names: dict[str, str] = {}
    last: Call | None = None
    for call, following in zip(calls, [*calls[1:], None], strict=True):
        if call.convolves:
            last = call
            has_norm = following and following.normalises and following.input is call.output
            # For a convolution that runs several times, the last run counts.
            names.pop(call.name, None)
            names[call.name] = following.name if following and has_norm else call.name
    if last and (tokens := forward.tokens_after(last)):
        raise ValueError(
            f"{type(network).__name__} works on tokens (shape {tokens}) after its last convolution "
            f"{last.name!r}, so that its convolutions are not what it classifies by"
        )
    return list(dict.fromkeys(names.values()))


def attention_layer(
    network: nn.Module, image_shape: Sequence[int], name: str | None, setting: str
) -> str:
    """The layer to read maps from: the one of that name or, for ``None``, the last spatial layer.

    A spatial layer is a module whose output is ``[n, channels, h, w]`` with h · w > 1. The last of
    them to finish gives the features that the classifier takes.

    Args:
        image_shape: (C, H, W) of the network's input.
        name: of a spatial layer, or ``None``.
        setting: the full setting name of the layer, for error messages.

    Raises:
        ValueError: `name` is no spatial layer; for ``None``, the network has none, or its last maps
            are channels-last or become tokens.
    """
    forward = forward_pass(network, image_shape)
    if name is None:
        part = setting.rpartition(".")[0]
        if not any(call.is_map for call in forward.calls):
            raise ValueError(
                f"no layer of {type(network).__name__} gives maps of more than one position, which "
                f"{part} needs: choose a convolutional network, or leave {part} out"
            )
        return _last_spatial(network, forward, setting, f"or leave {part} out")
    if seen := forward.layout(name):
        raise ValueError(
            f"{setting} is {name!r}, but that layer of {type(network).__name__} gives {seen}: "
            f"name one that gives maps [n, channels, h, w]{_examples(forward)}"
        )
    output = "maps of more than one position"
    return _checked_name(network, name, forward.spatial_names(), setting, output)


def feature_layer(
    network: nn.Module, image_shape: Sequence[int], name: str | None, setting: str
) -> str:
    """The layer whose output ``[n, …]`` is the features: by name, or the last spatial layer.

    Args:
        image_shape: (C, H, W) of the network's input.
        name: of any layer with an output per image; ``None``: the last spatial layer, see
            `attention_layer`.
        setting: the full setting name of the layer, for error messages.

    Raises:
        ValueError: the network has no layer of that name with an output per image or, for
            ``None``, no spatial layer, or its last maps are channels-last or become tokens.
    """
    forward = forward_pass(network, image_shape)
    if name is None:
        if any(call.is_map for call in forward.calls):
            return _last_spatial(network, forward, setting, "or any other layer")
        raise ValueError(
            f"no layer of {type(network).__name__} gives maps of more than one position, the "
            f"default for the features: set {setting} to another layer, or choose a convolutional "
            "network"
        )
    calls = [call for call in forward.calls if call.has_row_per_image]
    return _checked_name(network, name, unique_names(calls), setting, "one row per image")


def _last_spatial(network: nn.Module, forward: ForwardPass, setting: str, remedy: str) -> str:
    """The last spatial layer, if the classifier takes its maps."""
    last = [call for call in forward.calls if call.is_map][-1]
    kind, shape = type(network).__name__, list(last.output.shape)
    if seen := forward.layout(last.name):
        problem = f"the last maps of {kind}, of {last.name!r}, are {seen}"
    elif tokens := forward.tokens_after(last):
        problem = (
            f"the last maps of {kind}, {shape} of {last.name!r}, become tokens (shape {tokens}) "
            "before they are classified"
        )
    else:
        return last.name
    raise ValueError(
        f"{problem}, so that there is no default for {setting}: choose a convolutional network, "
        f"set {setting} to a layer that gives maps [n, channels, h, w]{_examples(forward)}, "
        f"{remedy}"
    )


def _examples(forward: ForwardPass) -> str:
    names = forward.spatial_names()[-3:]
    return f", such as {', '.join(names)}" if names else ""


def _checked_name(
    network: nn.Module, name: str, layers: Sequence[str], setting: str, output: str
) -> str:
    """`name`, if it is in `layers`, the layers that have such an output."""
    if name in layers:
        return name
    near = closest(name, layers, cutoff=0.3) or layers[-3:]
    raise ValueError(
        f"{setting} is {name!r}, which is no layer of {type(network).__name__} that gives "
        f"{output}: give one such as {', '.join(near) or 'null'}"
    )


def spatial_layers(network: nn.Module, image_shape: Sequence[int]) -> list[str]:
    """The names of modules with outputs ``[n, channels, h, w]``, h · w > 1, in execution order."""
    return forward_pass(network, image_shape).spatial_names()


def check_channels(
    network: nn.Module, image_shape: Sequence[int], names: Sequence[str], setting: str
) -> None:
    """Refuse layers whose second axis is not that of the channels.

    Args:
        image_shape: (C, H, W) of the network's input.
        names: of layers.
        setting: the full setting name of the layers, for error messages.

    Raises:
        ValueError: a layer is missing, does not run, or gives neither ``[n, channels]`` nor
            ``[n, channels, h, w]``.
    """
    forward = forward_pass(network, image_shape)
    kind = type(network).__name__
    for name in names:
        try:
            find_layer(network, name)
        except ValueError as error:
            raise ValueError(f"{setting}: {error}") from error
        if name not in {call.name for call in forward.calls}:
            raise ValueError(f"{setting}: {kind} does not run its layer {name!r}: name another")
        output = forward.output(name)
        if not isinstance(output, Tensor) or output.dim() < 2 or len(output) != 1:
            raise ValueError(
                f"{setting} has {name!r}, but that layer of {kind} gives no tensor [n, channels, "
                "…]: name another"
            )
        if seen := forward.layout(name):
            raise ValueError(
                f"{setting} has {name!r}, but that layer of {kind} gives {seen}: name layers that "
                f"give [n, channels] or [n, channels, h, w]{_examples(forward)}"
            )
