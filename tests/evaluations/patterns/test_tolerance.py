"""How exactly a pattern has to be applied."""

from dataclasses import replace
from statistics import fmean

import pytest
import torch
from torch.nn import functional

from cwx.evaluations.patterns import tolerance
from cwx.evaluations.patterns.distortions import add_noise, compress, shift
from cwx.evaluations.patterns.tolerance import PatternTolerance
from cwx.explanations.patterns import Patterns, Perturbations, Triggers
from cwx.functional.mask_search import binarise
from cwx.functional.rng import stream
from cwx.training.plan import Plan

SETTINGS = {"source": "iscp", "size": 0.25, "images": None}
SETTINGS |= {"shifts": [1, 2], "noise": [20.0], "jpeg": [50]}
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1))


def searched(subject):
    return torch.arange(len(subject.data.splits.test)) % 3 == 0


def patterns(subject):
    classes, shape = len(subject.data.classes), subject.data.image_shape
    return Patterns(
        explains="expert",
        masks=torch.rand(classes, *shape[1:], generator=stream(1)),
        canvases=torch.rand(classes, *shape, generator=stream(2)),
        labels=torch.arange(classes),
        searched=searched(subject),
    )


def triggers(subject):
    source = patterns(subject)
    return Triggers(
        explains="expert",
        masks=source.masks,
        patterns=source.canvases,
        labels=source.labels,
        success=torch.ones(3),
        required=torch.tensor(0.95),
        searched=source.searched,
    )


def perturbations(subject):
    """Two radii; the larger comes first for some classes and last for others."""
    classes, shape = len(subject.data.classes), subject.data.image_shape
    return Perturbations(
        explains="expert",
        deltas=torch.rand(2 * classes, *shape, generator=stream(3)) - 0.5,
        labels=torch.arange(classes).repeat(2),
        epsilons=torch.tensor([0.1, 0.5, 0.1, 0.5, 0.1, 0.5]),
        searched=searched(subject),
    )


def moved(planes, rows, columns):
    """The reference: padding with zeros and cropping."""
    height, width = planes.shape[-2:]
    far = 10
    padded = functional.pad(planes.double(), (far, far, far, far))
    top, left = far - rows, far - columns
    return padded[..., top : top + height, left : left + width]


def success(subject, images, label):
    network = subject.first_network("expert")
    labels = subject.data.splits.test.labels
    counted = (labels != label) & ~searched(subject)
    predictions = network(subject.data.normalization.normalize(images[counted])).argmax(1)
    return (predictions == label).double().mean().item()


def rates(outcome, distortion):
    rows = outcome.tables["pattern_tolerance"]
    return [row["success"] for row in rows if row["distortion"] == distortion]


def without_pattern(outcome, distortion):
    rows = outcome.tables["pattern_tolerance"]
    return [row["without"] for row in rows if row["distortion"] == distortion]


@pytest.mark.parametrize("rows", [-9, -3, -1, 0, 2, 4])
@pytest.mark.parametrize("columns", [-6, -2, 0, 1, 5])
def test_a_shift_moves_zeros_in(rows, columns):
    planes = torch.rand(2, 3, 4, 5, generator=stream(0))
    assert torch.equal(shift(planes, rows, columns).double(), moved(planes, rows, columns))


def test_noise_has_the_standard_deviation_and_is_clipped():
    grey = torch.full((4, 3, 40, 40), 0.5)
    assert float(add_noise(grey, 10, stream(0)).std()) == pytest.approx(10 / 255, rel=0.03)
    noisy = add_noise(torch.ones(4, 3, 40, 40), 100, stream(0))
    assert float(noisy.min()) >= 0
    assert float(noisy.max()) == 1


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_compression_keeps_smooth_images_and_changes_noise(channels):
    smooth = torch.linspace(0, 1, 16)[None, None, :, None].expand(2, channels, 16, 16)
    noise = torch.rand(2, channels, 16, 16, generator=stream(0))
    assert compress(smooth, 95).shape == smooth.shape
    assert float((compress(smooth, 95) - smooth).abs().mean()) < 0.02
    errors = [float((compress(noise, quality) - noise).abs().mean()) for quality in (95, 50, 5)]
    assert 0 < errors[0] < errors[1] < errors[2]


def test_success_rates_are_those_of_the_definition(subject):
    source, images = patterns(subject), subject.data.splits.test.images.float() / 255
    outcome = PatternTolerance(**SETTINGS)(subject, {"iscp": source})
    masks = binarise(source.masks, 4, stream(0))

    def attached(label, rows=0, columns=0):
        mask = moved(masks[label], rows, columns).bool()
        return torch.where(mask, moved(source.canvases[label], rows, columns).float(), images)

    exact = [success(subject, attached(label), label) for label in range(3)]
    assert rates(outcome, "none") == pytest.approx(exact)
    assert outcome.metrics["pattern_tolerance/iscp/none"] == pytest.approx(fmean(exact))
    shifted = [
        fmean(success(subject, attached(label, 2 * r, 2 * c), label) for r, c in DIRECTIONS)
        for label in range(3)
    ]
    metric = outcome.metrics["pattern_tolerance/iscp/shift/2"]
    assert metric == pytest.approx(fmean(shifted))
    compressed = [success(subject, compress(attached(label), 50), label) for label in range(3)]
    assert rates(outcome, "jpeg") == pytest.approx(compressed)
    without = [success(subject, compress(images, 50), label) for label in range(3)]
    metric = outcome.metrics["pattern_tolerance/iscp/jpeg/50/without"]
    assert metric == fmean(without)
    assert without_pattern(outcome, "jpeg") == without
    assert set(outcome.figures) == {"pattern_tolerance"}


def test_triggers_and_perturbations_are_shifted_too(subject):
    images = subject.data.splits.test.images.float() / 255
    source = triggers(subject)
    outcome = PatternTolerance(**SETTINGS)(subject, {"iscp": source})
    expected = []
    for label in range(3):
        of_class = []
        for r, c in DIRECTIONS:
            mask = moved(source.masks[label], r, c).float()
            pattern = moved(source.patterns[label], r, c).float()
            of_class.append(success(subject, (1 - mask) * images + mask * pattern, label))
        expected.append(fmean(of_class))
    assert outcome.metrics["pattern_tolerance/iscp/shift/1"] == pytest.approx(fmean(expected))

    changes = perturbations(subject)
    outcome = PatternTolerance(**SETTINGS)(subject, {"iscp": changes})
    largest = [3, 1, 5]
    exact = [
        success(subject, (images + changes.deltas[index]).clamp(0, 1), label)
        for label, index in enumerate(largest)
    ]
    assert rates(outcome, "none") == pytest.approx(exact)


def test_images_without_a_pattern_are_compressed_once_for_all_classes(subject, monkeypatch):
    counts = []

    def counted(images, quality):
        counts.append(len(images))
        return compress(images, quality)

    monkeypatch.setattr(tolerance, "compress", counted)
    PatternTolerance(**SETTINGS | {"jpeg": [90, 50]})(subject, {"iscp": patterns(subject)})
    total = len(subject.data.splits.test)
    # With a pattern: for each of three classes the images of the two others.
    assert sum(counts) == 2 * (total + 2 * total)


@pytest.mark.parametrize("source", [patterns, triggers, perturbations])
def test_a_class_without_images_outside_the_search_has_empty_cells(subject, source):
    labels, output = subject.data.splits.test.labels, source(subject)
    alone = PatternTolerance(**SETTINGS)(subject, {"iscp": replace(output, searched=labels != 1)})
    complete = PatternTolerance(**SETTINGS)(subject, {"iscp": output})
    rows = alone.tables["pattern_tolerance"]
    keys = ("distortion", "strength", "class")
    assert [[row[key] for key in keys] for row in rows] == [
        [row[key] for key in keys] for row in complete.tables["pattern_tolerance"]
    ]
    empty = {row["class"] for row in rows if row["success"] == row["without"] == ""}
    assert empty == {subject.data.classes[1]}
    values = [row["success"] for row in rows if row["distortion"] == "none"]
    mean = alone.metrics["pattern_tolerance/iscp/none"]
    assert mean == pytest.approx(fmean([values[0], values[2]]))
    every = torch.ones_like(output.searched)
    nothing = PatternTolerance(**SETTINGS)(subject, {"iscp": replace(output, searched=every)})
    assert not nothing.metrics
    assert not nothing.figures


def test_a_search_that_leaves_no_test_images_is_refused(subject):
    plan = Plan(data=subject.data, methods=["iscp"], held_out=0, leaves={"iscp": Perturbations})
    message = r"pattern_tolerance\.source is 'iscp', .*method\.iscp\.searched=1 uses all 24: lower"
    with pytest.raises(ValueError, match=message):
        PatternTolerance(**SETTINGS).check(replace(plan, searched={"iscp": 1.0}))
    PatternTolerance(**SETTINGS).check(replace(plan, searched={"iscp": 0.5}))


def test_no_distortion_is_needed(subject):
    settings = SETTINGS | {"shifts": [], "noise": [], "jpeg": []}
    outcome = PatternTolerance(**settings)(subject, {"iscp": patterns(subject)})
    assert {row["distortion"] for row in outcome.tables["pattern_tolerance"]} == {"none"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "activation"}, "no method of this study that leaves patterns, perturbations"),
        ({"shifts": [1, 4]}, "shifts has 4, and images have 4 x 4 pixels"),
        ({"size": 0.001}, "0.001"),
    ],
)
def test_settings_that_do_not_fit_are_refused(subject, changes, message):
    plan = Plan(data=subject.data, methods=["iscp"], held_out=0, leaves={"iscp": Patterns})
    PatternTolerance(**SETTINGS).check(plan)
    with pytest.raises(ValueError, match=message):
        PatternTolerance(**SETTINGS | changes).check(plan)
