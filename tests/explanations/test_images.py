"""Images as displayed: the contrast is stretched by class, and nothing else changes."""

import numpy as np
import pytest
import torch

from cwx.explanations.images import Explanations
from cwx.explanations.margins import Margins
from cwx.explanations.patterns import Patterns, Perturbations
from cwx.functional.images import Normalization

NORMALIZATION = Normalization(mean=(0.4, 0.5, 0.6), std=(0.2, 0.5, 0.1))


def noise(count=6, seed=0):
    images = 3 * torch.randn(count, 3, 9, 7, generator=torch.Generator().manual_seed(seed))
    # The second image of a class is darker and of less contrast.
    images[1::2] = 0.2 * images[1::2] - 2
    return images


def unit_display(explanations):
    return NORMALIZATION.denormalize(explanations.for_display(NORMALIZATION).images)


LABELS = torch.tensor([0, 0, 2, 2, 7, 7])


def test_the_central_98_percent_of_a_class_fill_the_range():
    images = noise()
    displayed = unit_display(Explanations(images, LABELS))
    for label in (0, 2, 7):
        unit = NORMALIZATION.denormalize(images)[label == LABELS].double().numpy()
        low, high = np.percentile(unit, [1, 99])
        expected = ((unit - low) / (high - low)).clip(0, 1)
        torch.testing.assert_close(
            displayed[label == LABELS].double(), torch.from_numpy(expected), atol=1e-5, rtol=0
        )


def test_the_range_is_of_the_class_and_of_no_other():
    images = noise()
    displayed = unit_display(Explanations(images, LABELS))
    changed = images.clone()
    changed[LABELS == 2] *= 10
    others = unit_display(Explanations(changed, LABELS))[LABELS != 2]
    assert torch.equal(others, displayed[LABELS != 2])
    # Images of a class stay comparable: a darker one is displayed darker.
    assert (displayed[1::2].mean((1, 2, 3)) < displayed[::2].mean((1, 2, 3))).all()
    alone = unit_display(Explanations(images[1:2], LABELS[1:2]))
    assert (alone - displayed[1]).abs().max() > 0.1


def test_display_leaves_raw_and_projected_images_as_they_are():
    images = noise()
    explanations = Explanations(images.clone(), LABELS)
    projected = explanations.project(NORMALIZATION).images
    explanations.for_display(NORMALIZATION)
    assert torch.equal(explanations.images, images)
    # Projection is by image and without clipping.
    unit = NORMALIZATION.denormalize(projected)
    torch.testing.assert_close(unit.amin((1, 2, 3)), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(unit.amax((1, 2, 3)), torch.ones(6), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [0.01, 5])
def test_perturbations_are_stretched_and_patterns_are_not(scale):
    deltas = scale * noise()
    searched = torch.ones(4, dtype=torch.bool)
    perturbations = Perturbations(
        explains="expert", deltas=deltas, labels=LABELS, epsilons=torch.ones(6), searched=searched
    )
    displayed = unit_display(perturbations)
    assert displayed.min().item() == pytest.approx(0, abs=1e-6)
    assert displayed.max().item() == pytest.approx(1, abs=1e-6)
    patterns = Patterns(
        explains="expert",
        masks=torch.ones(6, 9, 7),
        canvases=torch.full((6, 3, 9, 7), 0.75),
        labels=LABELS,
        searched=searched,
    )
    torch.testing.assert_close(unit_display(patterns), patterns.canvases)


def test_images_of_largest_margins_are_displayed_as_they_are():
    images = torch.rand(6, 3, 9, 7)
    margins = Margins(
        explains="expert", unit_images=images, labels=LABELS, start_margins=torch.randn(6, 5)
    )
    torch.testing.assert_close(unit_display(margins), images)
    assert torch.equal(margins.margins, margins.start_margins.max(1).values)
