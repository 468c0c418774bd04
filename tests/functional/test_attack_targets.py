"""Target classes of attacks."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import references

from cwx.functional.attack_targets import check_targets, least_likely, others, shifts
from cwx.functional.rng import stream

seeds = st.integers(0, 2**32)


@given(seed=seeds, classes=st.integers(2, 9), count=st.integers(0, 50))
def test_a_target_is_another_class(seed, classes, count):
    labels = torch.randint(classes, (count,), generator=stream(seed, 1))
    targets = others(labels, shifts(count, classes, stream(seed)), classes)
    assert targets.dtype == torch.int64
    assert targets.shape == labels.shape
    assert ((targets >= 0) & (targets < classes)).all()
    assert not (targets == labels).any()


def test_all_other_classes_are_equally_likely():
    labels = torch.arange(4).repeat_interleave(3000)
    targets = others(labels, shifts(len(labels), 4, stream(0)), 4)
    counts = torch.zeros(4, 4).index_put((labels, targets), torch.ones(()), accumulate=True)
    # Six standard deviations of a binomial of 3000 and 1/3.
    assert (counts[~torch.eye(4, dtype=torch.bool)] - 1000).abs().max() < 155


@given(seed=seeds, count=st.integers(0, 20), ranks=st.integers(1, 4))
def test_ranks_together_have_the_targets_of_one_process(seed, count, ranks):
    labels = torch.arange(count) % 5
    drawn = shifts(count, 5, stream(seed))
    whole, put_together = others(labels, drawn, 5), torch.full((count,), -1)
    for part in (slice(rank, None, ranks) for rank in range(ranks)):
        put_together[part] = others(labels[part], drawn[part], 5)
    assert torch.equal(put_together, whole)


def test_the_shifts_depend_on_the_generator_only():
    first, same, other = (shifts(40, 7, stream(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("classes", [0, 1])
def test_a_single_class_has_no_other(classes):
    with pytest.raises(ValueError, match=f"classes is {classes}: give data of 2 or more"):
        shifts(3, classes, stream(0))


@st.composite
def asked(draw):
    """Probabilities, of which some are equal or NaN, labels and a count."""
    classes, images = draw(st.integers(2, 7)), draw(st.integers(0, 5))
    values = st.sampled_from([0.0, 0.1, 0.25, 0.25, 0.5, 1.0])
    row = st.lists(values, min_size=classes, max_size=classes)
    rows = draw(st.lists(row, min_size=images, max_size=images))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=images, max_size=images))
    probabilities = torch.tensor(rows, dtype=torch.float32).view(images, classes)
    return probabilities, torch.tensor(labels).long(), draw(st.integers(1, classes - 1))


@given(given=asked())
def test_the_least_likely_are_those_of_a_sorted_list(given):
    probabilities, labels, count = given
    targets = least_likely(probabilities, labels, count)
    assert targets.dtype == torch.int64
    assert targets.shape == (len(labels), count)
    rows = zip(probabilities.tolist(), labels.tolist(), strict=True)
    assert targets.tolist() == [references.least_likely(*row, count) for row in rows]


@given(given=asked())
def test_fewer_targets_are_the_first_of_more(given):
    probabilities, labels, count = given
    every = least_likely(probabilities, labels, probabilities.shape[1] - 1)
    assert torch.equal(least_likely(probabilities, labels, count), every[:, :count])
    classes = set(range(probabilities.shape[1]))
    for row, label in zip(every.tolist(), labels.tolist(), strict=True):
        assert {*row} == classes - {label}


def test_the_label_is_excluded_even_if_probabilities_are_nan():
    targets = least_likely(torch.full((2, 3), torch.nan), torch.tensor([0, 2]), 2)
    assert targets.tolist() == [[1, 2], [0, 1]]


@pytest.mark.parametrize("count", [-1, 0, 10, 11])
def test_an_impossible_number_of_targets_is_refused(count):
    message = (
        f"adversary.targets is {count}, but with 10 classes an image has 9 possible targets: "
        "give 1 to 9"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        check_targets(count, 10)
