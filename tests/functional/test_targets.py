"""Random other classes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cwx.functional.streams import stream
from cwx.functional.targets import others, shifts

seeds = st.integers(0, 2**32)


@given(seed=seeds, classes=st.integers(2, 9), count=st.integers(0, 50))
def test_a_target_is_another_class(seed, classes, count):
    labels = torch.randint(classes, (count,), generator=stream(seed, 1))
    found = others(labels, shifts(count, classes, stream(seed)), classes)
    assert found.dtype == torch.int64
    assert found.shape == labels.shape
    assert ((found >= 0) & (found < classes)).all()
    assert not (found == labels).any()


def test_all_other_classes_are_equally_likely():
    labels = torch.arange(4).repeat_interleave(3000)
    found = others(labels, shifts(len(labels), 4, stream(0)), 4)
    counts = torch.zeros(4, 4).index_put((labels, found), torch.ones(()), accumulate=True)
    # Six standard deviations of a binomial of 3000 and 1/3.
    assert (counts[~torch.eye(4, dtype=torch.bool)] - 1000).abs().max() < 155


@given(seed=seeds, count=st.integers(0, 20), ranks=st.integers(1, 4))
def test_ranks_divide_what_one_process_draws(seed, count, ranks):
    labels = torch.arange(count) % 5
    drawn = shifts(count, 5, stream(seed))
    whole, put_together = others(labels, drawn, 5), torch.full((count,), -1)
    for part in (slice(rank, None, ranks) for rank in range(ranks)):
        put_together[part] = others(labels[part], drawn[part], 5)
    assert torch.equal(put_together, whole)


def test_the_generator_decides():
    first, same, other = (shifts(40, 7, stream(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("classes", [0, 1])
def test_a_single_class_has_no_other(classes):
    with pytest.raises(ValueError, match=f"classes is {classes}: give data of 2 or more"):
        shifts(3, classes, stream(0))
