"""The units of a network: which channels, and after which function they are read.

A unit is a channel of a layer, read where the rest of the network takes it: after the
normalisation, the residual addition and the non-linearity that follow the layer. Before a ReLU, a
channel that never fires would still have images of highest activation. On tokens, such as those of
a transformer, the units are channels of MLPs and of the residual stream.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from cwx.networks.forward_pass import ForwardPass, forward_pass
from cwx.networks.layers import attention_layer, check_channels, convolutional_layers
from cwx.networks.value_graph import IMAGES, Use, ValueGraph, value_graph


@dataclass(frozen=True, kw_only=True)
class UnitLayer:
    """A layer and the place where its units are read.

    Attributes:
        name: of the module that computes the units.
        functions: names of torch's functions from its output to the place of reading.
        place: the last of them that changes the units, in words: the name of an activation
            function, ``addition``, ``normalisation``, or ``output`` of the layer itself.
        axis: that of the units in the tensor that is read.
        resting: what the activation function gives for 0; 0 if the units are read before it.
    """

    name: str
    functions: tuple[str, ...] = ()
    place: str = "output"
    axis: int = 1
    resting: float = 0.0


# Kinds of functions after which a unit is another.
_MIXING = frozenset({"pooling", "other"})
# The logits of a network.
LOGITS = UnitLayer(name="")


class UnitLayers:
    """The layers of units of a network.

    Args:
        network: any network.
        image_shape: (C, H, W) of its input.
        before_nonlinearity: read after the normalisation, before additions and non-linearities.
    """

    def __init__(
        self, network: nn.Module, image_shape: Sequence[int], *, before_nonlinearity: bool = False
    ) -> None:
        self.network, self.image_shape = network, image_shape
        changing = {"activation", "addition"} if before_nonlinearity else set()
        self._stops = _MIXING | changing
        self._graph: ValueGraph = value_graph(network, image_shape)

    def named(self, names: Sequence[str], setting: str) -> list[UnitLayer]:
        """The layers of these names.

        Args:
            names: of modules.
            setting: the full setting name of the layers, for messages.

        Raises:
            ValueError: a layer is missing, does not run, the axis of its channels is unknown, or
                two layers have the same units, such as both summands of a residual addition.
        """
        others = [name for name in names if not self._is_channels_last(name)]
        check_channels(self.network, self.image_shape, others, setting)
        by_place: dict[int, str] = {}
        for name in names:
            known = by_place.setdefault(self._place(name), name)
            if known != name:
                raise ValueError(
                    f"{setting} has {known} and {name}, whose units are the same, as both are read "
                    f"after the same {self._layer(name).place}: remove one of them"
                )
        return [self._layer(name) for name in names]

    def all(self, setting: str) -> list[UnitLayer]:
        """All convolutions and, on tokens, MLPs and the residual stream, in execution order.

        Of several layers with one place, such as the two convolutions whose sum a residual block
        gives, the deepest counts. The last layer is that of `last`.

        Args:
            setting: the full setting name of the layers, for messages.

        Raises:
            ValueError: there is no such layer.
        """
        kind = type(self.network).__name__
        try:
            problem = "" if self._by_place else f"{kind} has no convolution"
        except ValueError as error:
            problem = str(error)
        if problem:
            raise ValueError(
                f"{setting} is null, and {problem}: name layers of {kind} that give [n, channels] "
                "or [n, channels, h, w], choose a convolutional network, or leave "
                f"{setting.rpartition('.')[0]} out"
            )
        layers = [self._layer(self._by_place[place]) for place in sorted(self._by_place)]
        name = self._last_name(setting, required=False)
        last = self._layer(name) if name else layers[-1]
        return [layer for layer in layers if layer != last] + [last]

    def last(self, name: str | None, setting: str) -> UnitLayer:
        """The layer of that name; for ``None``, the layer of units that the classifier takes.

        Args:
            name: of a module, or ``None``.
            setting: the full setting name of the layer, for messages.

        Raises:
            ValueError: `name` has no maps or tokens; for ``None``, no layer has.
        """
        if name is None:
            name = self._last_name(setting, required=True)
        elif not self._is_channels_last(name):
            attention_layer(self.network, self.image_shape, name, setting)
        assert name is not None
        return self._layer(name)

    def is_bottleneck(self, layer: UnitLayer) -> bool:
        """Whether the logits depend on the image through the units of `layer` alone.

        Args:
            layer: of this network.
        """
        place, reached, waiting = self._place(layer.name), {0}, [0]
        while waiting:
            for use in self._graph.values[waiting.pop()].uses:
                if use.output != place and use.output not in reached:
                    reached.add(use.output)
                    waiting.append(use.output)
        return self._graph.outputs.get(LOGITS.name, 0) not in reached

    @cached_property
    def _forward(self) -> ForwardPass:
        return forward_pass(self.network, self.image_shape)

    @cached_property
    def _by_place(self) -> dict[int, str]:
        """By the number of the value to read, the name of the deepest layer."""
        names = [*self._convolutions, *self._token_layers]
        by_place: dict[int, str] = {}
        for name in sorted(names, key=[*self._graph.outputs].index):
            known = by_place.get(place := self._place(name))
            if known is None or self._depth(name) > self._depth(known):
                by_place[place] = name
        return by_place

    @cached_property
    def _convolutions(self) -> list[str]:
        try:
            return convolutional_layers(self.network, self.image_shape)
        except ValueError:
            # Convolutions that only make the tokens are not what the network classifies by.
            if self._token_layers:
                return []
            raise

    @cached_property
    def _token_layers(self) -> list[str]:
        """Layers on tokens whose channels an activation or the residual stream takes."""
        modules: dict[str, nn.Module] = dict(self.network.named_modules())
        return [
            name
            for name, number in self._graph.outputs.items()
            if isinstance(modules[name], nn.Linear | nn.MultiheadAttention)
            and len(self._graph.values[number].shape) > 2
            and self._graph.values[number].axis == len(self._graph.values[number].shape) - 1
            and self._graph.values[number].shape[0] == IMAGES
            and any(use.kind in ("activation", "addition") for use in self._way(number, _MIXING))
        ]

    def _last_name(self, setting: str, *, required: bool) -> str | None:
        """The layer whose units the classifier takes, whole or pooled."""
        if self._token_layers and not self._convolutions:
            return self._by_place[max(self._by_place)]
        try:
            name = attention_layer(self.network, self.image_shape, None, setting)
        except ValueError:
            if required:
                raise
            return None
        number: int | None = self._place(name)
        while number is not None:
            if number in self._by_place:
                return self._by_place[number]
            source = self._graph.values[number].source
            kept = source and source[0].kind in ("pooling", "neutral")
            number = source[1] if source and kept else None
        return name

    def _depth(self, name: str) -> int:
        return self._graph.values[self._graph.outputs[name]].depth

    def _is_channels_last(self, name: str) -> bool:
        """Whether a layer gives tokens ``[n, tokens, channels]`` or maps ``[n, h, w, channels]``.

        Other tensors of four axes, such as the keys of attention heads, are neither.
        """
        number = self._graph.outputs.get(name)
        value = None if number is None else self._graph.values[number]
        if value is None or len(value.shape) < 3 or value.axis != len(value.shape) - 1:
            return False
        if value.shape[0] != IMAGES:
            # Tokens first, or windows of all images together: the rows are no images.
            return False
        layout = self._forward.layout(name) or ""
        return len(value.shape) == 3 or layout.startswith("channels-last")

    def _layer(self, name: str) -> UnitLayer:
        start = self._graph.outputs[name]
        way = self._way(start)
        axis = self._graph.values[way[-1].output if way else start].axis
        source = self._graph.values[start].source
        changes = [use for use in ([source[0]] if source else []) + way if use.kind in _PLACES]
        place = _PLACES[changes[-1].kind] if changes else "output"
        return UnitLayer(
            name=name,
            functions=tuple(use.function for use in way),
            place=place or changes[-1].function.strip("_"),
            axis=1 if axis is None else axis,
            resting=changes[-1].at_zero if changes else 0.0,
        )

    def _place(self, name: str) -> int:
        """The number of the value where a layer's units are read."""
        number = self._graph.outputs[name]
        way = self._way(number)
        return way[-1].output if way else number

    def _way(self, number: int, stops: Collection[str] | None = None) -> list[Use]:
        """The functions from a value to the place where its units are read.

        The way ends at a non-linearity, before a function that mixes or moves channels, and where
        several functions take the value.

        Args:
            stops: kinds of functions to end before; by default those of this reading.
        """
        stops = self._stops if stops is None else stops
        value, way = self._graph.values[number], list[Use]()
        if value.source is not None and value.source[0].kind == "activation":
            return way
        while len(value.uses) == 1 and value.uses[0].kind not in stops:
            (use,) = value.uses
            value = self._graph.values[use.output]
            if value.axis is None or value.shape[0] != IMAGES:
                break
            way.append(use)
            if use.kind == "activation":
                break
        return way


# Places by the kind of a function; that of an activation is its name.
_PLACES = {"activation": "", "addition": "addition", "norm": "normalisation"}
