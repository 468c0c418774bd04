"""The comparison with a bank: exact ranks under any law, power for a strong statistic, errors."""

import pytest
import torch

from cwx.functional.bank_comparison import compare_with_bank, within_network

DRAWS, ALPHA = 250, 0.05


def normal(generator, shape):
    return torch.randn(shape, generator=generator)


def heavy(generator, shape):
    """Student's t with one degree of freedom: no mean, no variance."""
    return normal(generator, shape) / normal(generator, shape)


def correlated(generator, shape):
    networks, _, classes = shape
    common = normal(generator, (networks, 1, classes)) + normal(generator, (networks, 1, 1))
    return common + 0.3 * normal(generator, shape)


def mostly_zero(generator, shape):
    """Rates of success that are 0 for four of five classes: more than half of all deviations."""
    rates = torch.rand(shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < 0.8, 0.0, rates)


@pytest.mark.parametrize("classes", [10, 43])
@pytest.mark.parametrize("law", [normal, heavy, correlated, mostly_zero])
def test_clean_networks_are_flagged_at_the_nominal_rate(law, classes):
    generator = torch.Generator().manual_seed(0)
    flagged = 0
    for _ in range(DRAWS):
        values = law(generator, (20, 3, classes)) + 5 * torch.randn(3, classes, generator=generator)
        flagged += compare_with_bank(values[0], values[1:]).p <= ALPHA + 1e-9
    # The 99.9 % interval of a binomial law of 250 draws at 0.05.
    assert flagged <= 26


@pytest.mark.parametrize("law", [normal, heavy, correlated])
def test_all_networks_together_have_every_rank_once(law):
    """Each network as the suspect of the others: the p-values are 1/n … n/n without ties."""
    values = law(torch.Generator().manual_seed(1), (24, 2, 7))
    others = torch.ones(24, dtype=torch.bool)
    ps = []
    for index in range(24):
        others[index] = False
        ps.append(compare_with_bank(values[index], values[others]).p)
        others[index] = True
    assert sorted(ps) == pytest.approx([(i + 1) / 24 for i in range(24)])


def test_offsets_and_units_of_statistics_change_nothing():
    values = normal(torch.Generator().manual_seed(2), (21, 2, 5)).double()
    plain = compare_with_bank(values[0], values[1:])
    moved = values * torch.tensor([3.0, 0.01])[:, None] + torch.arange(10.0).view(2, 5)
    other = compare_with_bank(moved[0], moved[1:])
    assert other.p == plain.p
    torch.testing.assert_close(other.bank_scores, plain.bank_scores)


def test_a_class_that_stands_out_in_one_statistic_is_named():
    values = normal(torch.Generator().manual_seed(3), (40, 4, 10))
    values[0, 2, 7] += 12
    result = compare_with_bank(values[0], values[1:])
    assert (result.statistic, result.label, result.p) == (2, 7, 1 / 40)
    assert result.scores.argmax() == 2
    assert result.classes[2] == 7


def test_a_class_that_is_easy_in_all_networks_is_not_suspicious():
    values = normal(torch.Generator().manual_seed(4), (40, 1, 10))
    values[:, 0, 3] += 100
    result = compare_with_bank(values[0], values[1:])
    assert result.excess[0].abs().max() < 10
    # Within one network it looks like a target.
    assert within_network(values[0])[0].argmax() == 3


def test_values_that_no_network_has_are_left_out():
    values = normal(torch.Generator().manual_seed(5), (30, 2, 6))
    values[:, 0, 1] = torch.nan
    values[0, 1, 4] += 20
    result = compare_with_bank(values[0], values[1:])
    assert (result.label, result.p) == (4, 1 / 30)
    assert result.excess[0, 1].isnan()


def test_equal_networks_are_not_suspicious():
    assert compare_with_bank(torch.ones(2, 3), torch.ones(19, 2, 3)).p == 1


@pytest.mark.parametrize(
    ("suspect", "bank"),
    [
        (torch.zeros(2, 3), torch.zeros(0, 2, 3)),
        (torch.zeros(2, 3), torch.zeros(4, 3, 2)),
        (torch.full((2, 3), torch.inf), torch.zeros(4, 2, 3)),
        (torch.full((2, 3), torch.nan), torch.full((4, 2, 3), torch.nan)),
        (torch.tensor([[0.0, torch.nan]]), torch.zeros(4, 1, 2)),
    ],
)
def test_statistics_that_do_not_match_are_refused(suspect, bank):
    with pytest.raises(ValueError, match="match|finite"):
        compare_with_bank(suspect, bank)
