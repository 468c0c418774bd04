"""Margins, their gradients, and the decision rule of MM-BD."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

from cwx.functional.images import Normalization
from cwx.functional.maximum_margin import (
    GammaLaw,
    fit_gamma,
    margin_gradients,
    margins,
    maximum_margin_test,
    median_margin,
)
from cwx.functional.rng import stream

PLAIN = Normalization(mean=(0.5,), std=(0.25,))


def literal_margin(logits, label):
    return logits[label] - max(v for j, v in enumerate(logits) if j != label)


def test_a_margin_is_the_logit_minus_the_highest_other():
    logits = torch.randn(20, 5, generator=stream(0))
    labels = torch.randint(5, (20,), generator=stream(1))
    expected = [literal_margin(row, y) for row, y in zip(logits.tolist(), labels, strict=True)]
    torch.testing.assert_close(margins(logits, labels), torch.tensor(expected))


def test_a_margin_is_positive_exactly_for_correct_images():
    logits = torch.randn(200, 3, generator=stream(0))
    labels = torch.randint(3, (200,), generator=stream(1))
    assert torch.equal(margins(logits, labels) > 0, logits.argmax(1) == labels)


def test_the_gradient_is_the_difference_of_two_rows_of_a_linear_network():
    linear = nn.Linear(4, 3).double()
    images = torch.rand(6, 1, 2, 2, generator=stream(0)).double()
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    gradient, losses = margin_gradients(
        lambda x: linear(x.flatten(1)), images, labels, normalization=PLAIN
    )
    logits = linear(PLAIN.normalize(images).flatten(1)).detach()
    torch.testing.assert_close(losses, -margins(logits, labels))
    others = logits.scatter(1, labels[:, None], -math.inf).argmax(1)
    expected = -(linear.weight[labels] - linear.weight[others]).detach() / 0.25
    torch.testing.assert_close(gradient.flatten(1), expected)
    assert all(parameter.grad is None for parameter in linear.parameters())


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_the_median_margin_is_the_middle_of_the_sorted_margins(count):
    logits = torch.randn(count, 3, generator=stream(count)).double()
    labels = torch.zeros(count, dtype=torch.long)
    ordered = sorted(margins(logits, labels).tolist())
    expected = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    assert median_margin(logits, labels) == pytest.approx(expected)
    assert median_margin(3 * logits, labels) == pytest.approx(3 * expected)


def test_no_images_have_no_median_margin():
    with pytest.raises(ValueError, match="needs test images, and there are none"):
        median_margin(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))


@pytest.mark.parametrize("shape", [0.05, 0.5, 1.0, 7.0, 300.0, 1e5])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_the_fit_is_that_of_scipy(shape, scale):
    values = torch.tensor(stats.gamma.rvs(shape, scale=scale, size=40, random_state=0)) + 1e-30
    law = fit_gamma(values)
    expected, _, expected_scale = stats.gamma.fit(values.numpy(), floc=0)
    assert law.shape == pytest.approx(expected, rel=1e-4)
    assert law.scale == pytest.approx(expected_scale, rel=1e-4)
    assert law.shape * law.scale == pytest.approx(values.mean().item())


@pytest.mark.parametrize("quotient", [0.1, 1.0, 3.0, 10.0])
def test_the_survival_is_that_of_scipy(quotient):
    law = GammaLaw(3.5, 2.0)
    expected = stats.gamma.sf(7 * quotient, 3.5, scale=2.0)
    assert law.survival(7 * quotient) == pytest.approx(expected, rel=1e-9)
    assert law.survival(-1.0) == 1


def test_the_p_value_is_of_the_largest_of_all_classes():
    statistics = torch.tensor([3.0, 4.0, 9.0, 3.5, 4.2, 2.9])
    others = [3.0, 4.0, 3.5, 4.2, 2.9]
    shape, _, scale = stats.gamma.fit(others, floc=0)
    test = maximum_margin_test(statistics)
    assert test.label == 2
    assert test.p_value == pytest.approx(
        1 - stats.gamma.cdf(9.0, shape, scale=scale) ** 6, rel=1e-5
    )
    assert test.rejected
    assert not maximum_margin_test(torch.tensor([3.0, 4.0, 4.4, 3.5, 4.2, 2.9])).rejected


def test_the_unit_of_logits_does_not_change_the_decision():
    statistics = 5 + torch.randn(10, generator=stream(0)).abs().double()
    first, other = (maximum_margin_test(factor * statistics) for factor in (1.0, 1000.0))
    assert first.label == other.label
    assert first.p_value == pytest.approx(other.p_value, rel=1e-6)


def test_a_larger_maximum_is_never_less_suspicious():
    others = 5 + torch.randn(9, generator=stream(0)).abs()
    p_values = [
        maximum_margin_test(torch.cat([others, others.max()[None] * factor])).p_value
        for factor in (1.0, 1.1, 1.5, 3.0, 10.0)
    ]
    assert p_values == sorted(p_values, reverse=True)
    assert 0 <= p_values[-1] < 1e-6


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ([1.0, 2.0, 3.0], "needs 4 classes or more, and there are 3"),
        ([1.0, -2.0, 3.0, 4.0], "finite values above 0, not -2"),
        ([1.0, 2.0, 3.0, math.nan], "needs finite margins, not"),
        ([1.0, 2.0, 3.0, math.inf], "needs finite margins, not"),
        ([1.0, 1.0, 1.0, 4.0], "no Gamma law fits 3 equal values"),
    ],
)
def test_statistics_without_a_gamma_law_are_refused(statistics, message):
    with pytest.raises(ValueError, match=message):
        maximum_margin_test(torch.tensor(statistics))
