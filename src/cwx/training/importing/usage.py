"""How a file of weights is used, found out on the user's images.

A file seldom states its architecture, the size and the normalisation of its images, or the order of
its classes. A wrong one raises no error, but lowers the accuracy: the usual ways are tried, and the
accuracy decides.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from cwx.data.datasets.folder_preview import FolderPreview
from cwx.data.splits import ImageSet
from cwx.functional.accuracy_tests import is_at_chance
from cwx.functional.images import Normalization
from cwx.networks.external import adapt
from cwx.training.importing.architecture import Architecture
from cwx.training.importing.inputs import Inputs, named_inputs, usual_inputs, with_scale_name
from cwx.training.importing.output_form import OutputForm, output_form
from cwx.training.importing.ways import (
    Way,
    distinct,
    forward_pass,
    in_orders,
    is_equal,
    measure_log_probabilities,
    most_likely,
    rank,
)

# Test images of the first look and of the comparison, for images up to so many pixels, and above.
_SMALL = 64 * 64
_OF_SMALL, _OF_LARGE = (128, 512), (32, 192)
# Images on which architectures and sizes are compared first, of whatever size.
_FIRST = 64
# Ways that are compared on more images after a first look.
_FINALISTS = 6
# Normalisations that are also tried with channels as blue, green, red.
_REVERSED = 2


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What the user states about a file of weights; ``None`` where it is to be found out.

    Attributes:
        mean, std: of the normalisation, for pixels in 0-1.
        size, resize: of the images, as those of `ClassFolders`.
    """

    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    size: int | None = None
    resize: int | None = None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How a file of weights is used.

    Attributes:
        way: the most accurate way.
        equal: other ways whose accuracy does not differ by more than its error.
        ways: all ways that were compared: the chosen one, then the most accurate ones.
        tried: the number of ways, those of the first looks included.
        is_at_chance: whether the most accurate way is no better than chance.
        seconds: of one image's forward pass.
    """

    way: Way
    equal: Sequence[Way]
    ways: Sequence[Way]
    tried: int
    is_at_chance: bool
    seconds: float


@dataclass
class UsageSearch:
    """Tries the usual ways to use weights.

    Args:
        architectures: that fit the tensors, the most usual first, with their networks in eval mode
            and with the weights.
        folder: the images, with the names of all outputs.
        states_order: whether the order of the names is known.
        words: what the file states (`cwx.training.importing.weights_file`).
        stated: what the user states.
        device: to compute on.
    """

    architectures: Sequence[tuple[Architecture, nn.Module]]
    folder: FolderPreview
    states_order: bool
    words: Mapping[str, Any]
    stated: Stated
    device: torch.device
    _sets: dict[tuple[Any, ...], ImageSet] = field(default_factory=dict)
    _forms: dict[int, OutputForm] = field(default_factory=dict)
    _tried: int = 0

    def run(self) -> Usage:
        """Compare the ways.

        Raises:
            ValueError: no network takes the images, or an output is no tensor of logits.
        """
        bases = self._bases()
        looks: list[Way] = []
        for index, size, resize in bases:
            straight, reverse = self._inputs(self.architectures[index][0])
            look, _ = self._counts(size)
            measured = [
                way
                for inputs in straight
                for way in self._measure(index, size, resize, inputs, look)
            ]
            best_names = [way.inputs.changes[0] for way in distinct(sorted(measured, key=rank))]
            for inputs in reverse:
                if inputs.changes[0] in best_names[:_REVERSED]:
                    measured += self._measure(index, size, resize, inputs, look)
            looks += measured
        finalists = distinct(sorted(looks, key=rank))[:_FINALISTS]
        # All on the same images.
        count = min(self._counts(way.size)[1] for way in finalists)
        ways: list[Way] = []
        for way in finalists:
            known = [architecture is way.architecture for architecture, _ in self.architectures]
            index = known.index(True)
            measured = self._measure(index, way.size, way.resize, way.inputs, count)
            ways += [w for w in measured if w.order_name == way.order_name]
        ways.sort(key=rank)
        best = most_likely(ways)
        labels = self._images(best.size, best.resize, count).labels
        return Usage(
            way=best,
            equal=[way for way in ways if way is not best and is_equal(best, way)],
            ways=[best, *(way for way in ways if way is not best)],
            tried=self._tried,
            # Not on the images that served to choose the order of classes.
            is_at_chance=is_at_chance(
                best.predictions[best.is_measured],
                labels[best.is_measured],
                len(self.folder.classes),
            ),
            seconds=best.seconds,
        )

    def _bases(self) -> list[tuple[int, int | None, int | None]]:
        """The best architecture with its image size in a first look, and another if it is equal.

        Raises:
            ValueError: no network takes images of a usual size.
        """
        own = self.folder.side
        candidates = [
            (index, size, resize)
            for index, (architecture, _) in enumerate(self.architectures)
            for size, resize in self._sizes(architecture)
            # Small images are enlarged for the most usual architecture alone: others, with a stem
            # for small images, would take minutes.
            if index == 0 or size is None or own is None or own > _SMALL**0.5 or size <= own
        ]
        if len(candidates) == 1:
            return candidates
        results: list[tuple[Way, int]] = []
        faults: list[str] = []
        for position, (index, size, resize) in enumerate(candidates):
            inputs = self._inputs(self.architectures[index][0])[0][0]
            try:
                ways = self._measure(index, size, resize, inputs, _FIRST)
            except ValueError as error:
                faults.append(str(error))
                continue
            results.append((min(ways, key=rank), position))
        if not results:
            raise ValueError(f"the network takes the images in no usual size: {faults[0]}")
        results.sort(key=lambda result: rank(result[0]))
        best, first = results[0]
        # Another that is not told apart on these images is compared on more.
        equal = [position for way, position in results[1:] if is_equal(best, way)]
        return [candidates[position] for position in [first, *equal[:1]]]

    def _sizes(self, architecture: Architecture) -> list[tuple[int | None, int | None]]:
        """The sizes to try, the most likely first."""
        if self.stated.size is not None:
            return [(self.stated.size, self.stated.resize)]
        if "size" in self.words:
            size, crop = min(self.words["size"]), self.words.get("crop")
            return [(size, math.floor(size / crop) if crop and crop < 1 else None)]
        if architecture.image_size is not None:
            size = architecture.image_size
            return [(size, None), (size, round(size * 8 / 7))] if size > 64 else [(size, None)]
        own = self.folder.side
        likely = architecture.likely_size
        sizes: list[tuple[int | None, int | None]] = []
        if own is not None and own <= 64:
            sizes.append((None, None))
        if likely is not None and likely != own:
            sizes += [(likely, round(likely * 8 / 7)), (likely, None)] if likely > 64 else [
                (likely, None)
            ]  # fmt: skip
        if not sizes:
            sizes = [(None, None)] if own is not None else [(224, 256), (224, None), (32, None)]
        return sizes

    def _inputs(self, architecture: Architecture) -> tuple[list[Inputs], list[Inputs]]:
        """The normalisations to try, the most likely first; those with reversed channels apart."""
        channels = self.architectures[0][0].channels
        for mean, std, name in (
            (self.stated.mean, self.stated.std, "stated"),
            (self.words.get("mean"), self.words.get("std"), "of the file"),
            (*(architecture.normalization or (None, None)), "of the file"),
        ):
            if mean is None or std is None:
                continue
            if {len(mean), len(std)} <= {1, channels}:
                own = named_inputs(mean, std, name, channels)
                if name == "stated" or "normalization_tensors" not in self.words:
                    return [own], []
                # The network itself may apply the values of its tensors, to pixels in 0-1.
                return [own, named_inputs((0.0,), (1.0,), "pixels in 0-1", channels)], []
            if name == "stated":
                raise ValueError(
                    f"--mean and --std have {len(mean)} and {len(std)} values, but the network "
                    f"takes {channels} channels: give one value or {channels}"
                )
        present = Normalization(mean=[0.5] * channels, std=[0.5] * channels)
        named = named_inputs(present.mean, present.std, "pixels in -1 to 1", channels)
        inputs = [named, *(with_scale_name(i) for i in usual_inputs(present))]
        usual = "ImageNet's" if (architecture.likely_size or 0) > 64 else "CIFAR-10's"
        # Inverted pixels have no setting.
        usable = sorted(
            (i for i in inputs if not i.is_inverted), key=lambda i: i.changes[0] != usual
        )
        straight = [i for i in usable if not i.is_reversed]
        return straight, [i for i in usable if i.is_reversed]

    def _counts(self, size: int | None) -> tuple[int, int]:
        """The numbers of images of the first look and of the comparison."""
        side = size or self.folder.side or 224
        return _OF_SMALL if side * side <= _SMALL else _OF_LARGE

    def _images(self, size: int | None, resize: int | None, count: int) -> ImageSet:
        key = (size, resize, count)
        if key not in self._sets:
            self._sets[key] = self.folder.images(count, size, resize)
        return self._sets[key]

    @torch.no_grad()
    def _measure(
        self, index: int, size: int | None, resize: int | None, inputs: Inputs, count: int
    ) -> list[Way]:
        """The way with the outputs in each usual order of classes.

        Raises:
            ValueError: the network does not take the images, or its outputs are no logits.
        """
        architecture, network = self.architectures[index]
        images = self._images(size, resize, count)
        pixels = images.images[:]
        with forward_pass():
            if index not in self._forms:
                form = output_form(network, pixels, inputs, len(self.folder.classes))
                self._forms[index] = form
                adapt(network, **form.settings, reverse_channels=False)
            start = time.monotonic()
            log_probabilities = measure_log_probabilities(network, pixels, inputs, self.device)
        seconds = (time.monotonic() - start) / len(images)
        self._tried += 1
        base = Way(
            architecture=architecture,
            form=self._forms[index],
            size=size,
            resize=resize,
            inputs=inputs,
            order=None,
            order_name="",
            is_correct=torch.empty(0),
            is_measured=torch.ones(len(images), dtype=torch.bool),
            loss=torch.empty(0),
            predictions=torch.empty(0),
            seconds=seconds,
        )
        return list(
            in_orders(
                base,
                log_probabilities,
                images.labels,
                self.folder.classes,
                permutes=not self.states_order
                and len(self.folder.present) == len(self.folder.classes),
            )
        )
