"""Refusing an imported network whose accuracy says that the images do not fit it.

A wrong size, normalisation, channel order or order of classes raises no error: it lowers the
accuracy. So the network is measured on the test images as configured, and in the other usual ways.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from cwx.data.class_order import usual_orders
from cwx.data.datamodule import ImageData
from cwx.data.splits import ImageSet
from cwx.data.usual_sizes import Resizable, usual_sizes
from cwx.functional.accuracy_tests import chance_needs, is_at_chance
from cwx.training.importing.inputs import Inputs, usual_inputs
from cwx.training.importing.trials import Trial, matched, predict, reordered

log = logging.getLogger(__name__)

# The gain in accuracy that refuses. A larger crop or another scale can legitimately raise the
# accuracy by some points; another normalisation or order of classes does not.
GAIN, SIZE_GAIN = 0.03, 0.1
# The probability to refuse a network by chance, over all ways that are tried.
ERROR = 1e-3
# The largest number of test images, for images up to so many pixels, and for larger ones.
_SMALL = 64 * 64
_MOST, _MOST_OF_LARGE = 512, 256
# The images of a first look at a size or an input.
_FIRST = 32
# The images of a class from which an order of outputs is fitted.
_PER_CLASS = 4
# The p value from which two accuracies do not differ, and the number of ways that are named.
_WITHIN_ERROR, _MOST_NAMED = 0.05, 3

_ACCEPT = "or set experts.check_accuracy=false to explain the network as it is"


class NetworkTrials:
    """Measures one network on the test images, as configured and in other usual ways.

    Args:
        network: on `device`, with its weights.
        data: the images, loaded.
        device: to compute on.

    Attributes:
        images: the test images used, evenly spaced.
        present: the trial of the network as configured.
        ruled_out: the number of ways that a first look has ruled out so far.

    Raises:
        ValueError: an output is not finite.
    """

    def __init__(self, network: nn.Module, data: ImageData, device: torch.device) -> None:
        self.network, self.data, self.device = network, data, device
        _, height, width = data.image_shape
        most = _MOST if height * width <= _SMALL else _MOST_OF_LARGE
        indices = data.splits.test.spread_indices(most)
        self._files = data.splits.test_file_numbers(indices)
        self.images = data.splits.test.at(indices).resident()
        self.configured = Inputs((), (), data.normalization)
        self.present = self._trial(self.images, self.configured, GAIN)
        self.ruled_out = 0

    def others(self) -> Iterator[Trial]:
        """The trials of the other usual ways, the most promising size first."""
        sizes = list(self._sizes())
        yield from (size for size, _ in sizes)
        # The present size, unless another is far better.
        fitting = [(t, images) for t, images in sizes if t.is_far_better(self.present)]
        base, images = max(
            [(self.present, self.images), *fitting], key=lambda pair: pair[0].accuracy
        )
        bases = [base]
        for inputs in usual_inputs(self.data.normalization):
            if self._is_promising(images, inputs, base):
                bases.append(self._trial(images, inputs, max(base.gain, GAIN), base))
        yield from bases[1:]
        splits, labels = self.data.splits, self.images.labels
        orders = usual_orders(splits.classes, splits.synsets)
        for scaled in bases:
            yield from reordered(scaled, labels, splits.classes, orders)
            # With fewer images a class, the fitted order would be that of single images.
            if len(labels) >= _PER_CLASS * len(splits.classes):
                yield matched(scaled, labels, splits.classes)

    def _is_promising(self, images: ImageSet, inputs: Inputs, base: Trial) -> bool:
        """Whether a first look at few images does not rule `inputs` out.

        Small images are quick: they need no gain there, and no look where most are classified
        wrongly, as the order of the classes may differ as well.
        """
        is_small = images.images[0, 0].numel() <= _SMALL
        if is_small and base.accuracy < 0.5:
            return True
        first = images.spread_indices(_FIRST)
        look = self._trial(images.at(first), inputs, GAIN)
        needed = int(base.is_correct[first].sum()) + (0 if is_small else 2)
        if int(look.is_correct.sum()) < needed:
            self.ruled_out += 1
            return False
        return True

    def _sizes(self) -> Iterator[tuple[Trial, ImageSet]]:
        """The trials of the sizes that a first look on few images does not rule out."""
        source, side = self.data.source, min(self.data.image_shape[1:])
        if not isinstance(source, Resizable):
            return
        first = self.images.spread_indices(_FIRST)
        looks: list[tuple[int, Inputs, Resizable]] = []
        tried = 0
        for settings, resized in usual_sizes(source, side):
            inputs = replace(self.configured, changes=(settings,), settings=(settings,))
            try:
                look = self._trial(resized.test_images(self._files[first]), inputs, SIZE_GAIN)
            except (RuntimeError, ValueError, AssertionError):
                # Not every network takes images of every size.
                continue
            tried += 1
            hits = int(look.is_correct.sum())
            # A tenth of the images: the gain that refuses.
            if hits >= int(self.present.is_correct[first].sum()) + SIZE_GAIN * len(first):
                looks.append((hits, inputs, resized))
        best = sorted(looks, key=lambda look: -look[0])[:2]
        self.ruled_out += tried - len(best)
        for _, inputs, resized in best:
            images = resized.test_images(self._files)
            yield self._trial(images, inputs, SIZE_GAIN), images

    def _trial(
        self, images: ImageSet, inputs: Inputs, gain: float, base: Trial | None = None
    ) -> Trial:
        """The trial of `inputs` on `images`, which already have the changes of `base`."""
        # Larger images than the configured ones may need more memory.
        size = min(self.data.batch_size, 64)
        predictions = predict(self.network, images.images[:], inputs, size=size, device=self.device)
        return Trial(
            changes=(*(base.changes if base else ()), *inputs.changes),
            settings=(*(base.settings if base else ()), *inputs.settings),
            gain=gain,
            is_correct=predictions == images.labels,
            predictions=predictions,
            is_measured=torch.ones(len(images), dtype=torch.bool),
        )


def check_accuracy(name: str, network: nn.Module, data: ImageData, device: torch.device) -> None:
    """Refuse a network that another usual way to use it would make far more accurate.

    The ways are other sizes (of image folders), normalisations, channel orders and orders of
    classes. Far more accurate: by 3 points (by 10 where the size differs) and a tenth of the
    errors, on the same images, with p < 0.001 over all ways (sign test, Bonferroni). A smaller
    gain is logged.

    Args:
        name: of the network, for messages.
        network: with its weights.
        data: the images, loaded.
        device: to compute on.

    Raises:
        ValueError: as above, the accuracy is at chance, or an output is not finite.
    """
    test, classes = data.splits.test, len(data.classes)
    if not len(test):
        log.warning("the accuracy of %s cannot be checked: the data have no test images", name)
        return
    try:
        trials = NetworkTrials(network.to(device), data, device)
    except ValueError as error:
        raise ValueError(
            f"{name}: {error}: check data.mean, data.std and the weights, {_ACCEPT}"
        ) from error
    present = trials.present
    log.info("%s: accuracy %.3f on %d test images", name, present.accuracy, len(trials.images))
    if len(test) < (needed := chance_needs(classes)):
        line = "%s: %d test images are too few to tell its accuracy from chance (%d would do)"
        log.warning(line, name, len(test), needed)
    if 1 - present.accuracy < GAIN:
        return
    others = list(trials.others())
    # A first look tries a way, too.
    tried = len(others) + trials.ruled_out
    level = ERROR / max(1, tried)
    better = [other for other in others if other.p_value(present) < level]
    far = [other for other in better if other.is_far_better(present)]
    if far:
        raise ValueError(_better(name, present, _fitting(far)))
    if is_at_chance(present.predictions, trials.images.labels, classes):
        raise ValueError(_at_chance(name, present, data, tried))
    if better:
        other = _simplest(better)
        line = "%s: accuracy %.3f, but %.3f with %s: is that how it was trained?"
        changes = ", ".join(other.changes)
        log.warning(line, name, other.accuracy_of(present), other.accuracy, changes)


def _simplest(trials: Sequence[Trial]) -> Trial:
    """The trial of fewest changes whose accuracy is close to the highest.

    An order that was fitted to half of the images comes after the usual ones.
    """
    highest = max(t.accuracy for t in trials)
    return min(
        (t for t in trials if t.accuracy > highest - GAIN),
        key=lambda t: (len(t.changes), not t.is_measured.all(), -t.accuracy),
    )


def _fitting(trials: Sequence[Trial]) -> list[Trial]:
    """The simplest of the best trials, and as simple ones whose accuracy is within its error."""
    best = _simplest(trials)
    fitting = [best]
    for trial in sorted(trials, key=lambda t: -t.accuracy):
        is_new = all(trial.settings != t.settings for t in fitting)
        # An order that was fitted to half of the images says less than a usual order.
        is_comparable = len(trial.changes) == len(best.changes) and bool(trial.is_measured.all())
        if is_new and is_comparable and best.p_value(trial) > _WITHIN_ERROR:
            fitting.append(trial)
    return fitting


def _better(name: str, present: Trial, fitting: Sequence[Trial]) -> str:
    best, shown = fitting[0], fitting[:_MOST_NAMED]
    ways = "; ".join(f"{t.accuracy:.3f} with {', '.join(t.changes)}" for t in shown)
    remedies = "; or ".join(" and ".join(t.settings) for t in shown)
    choice = "use" if len(shown) == 1 else "these do not differ by more than the error: use"
    return (
        f"the accuracy of {name} is {best.accuracy_of(present):.3f} on "
        f"{int(best.is_measured.sum())} test images, but {ways}: {choice} {remedies}, {_ACCEPT}"
    )


def _at_chance(name: str, present: Trial, data: ImageData, tried: int) -> str:
    counts: Tensor = present.predictions.bincount(minlength=len(data.classes))
    most = int(counts.argmax())
    return (
        f"the accuracy of {name} is {present.accuracy:.3f} on {len(present.predictions)} test "
        f"images, at chance for {len(data.classes)} classes ({counts[most] / counts.sum():.0%} "
        f"are classified as {data.classes[most]!r}), and {tried} other usual sizes, "
        "normalisations and orders of classes are no better: check the weights, the order of "
        "classes (data.source.classes), the size (data.source.size, data.source.resize) and the "
        f"normalisation (data.mean, data.std) that it was trained with, {_ACCEPT}"
    )
