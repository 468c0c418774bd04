import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import references

from cwx.data.step_loaders import epoch_length
from cwx.data.trajectory_segments import PrefetchLoader, Segments, SegmentSampler, check_range
from cwx.storage.trajectories import Recorder, Trajectory


def vector(state):
    return references.flat(state.values())


def segments(subject, **settings):
    arguments = {
        "span": 2,
        "start_min": 0,
        "start_max": 2,
        "per_step": 2,
        "epoch_steps": 5,
        "seed": 0,
    }
    return Segments(trajectories=subject.trajectories, vector=vector, **{**arguments, **settings})


def test_a_segment_holds_the_recorded_states_at_both_its_ends(subject):
    drawn = [s for batch in segments(subject).train_dataloader() for s in batch.segments]
    recorded = [[vector(t.state(e)) for e in t.recorded_epochs] for t in subject.trajectories]
    for start, target in drawn:
        matches = [
            (expert, epoch)
            for expert, states in enumerate(recorded)
            for epoch, state in enumerate(states)
            if torch.equal(state, start)
        ]
        ((expert, epoch),) = matches
        assert torch.equal(recorded[expert][epoch + 2], target)


class Reader:
    """A fake dataset that logs the draws it reads, and fails at the draw "broken"."""

    def __init__(self):
        self.read, self.done = [], threading.Semaphore(0)

    def __getitem__(self, draw):
        self.read.append(draw)
        self.done.release()
        if draw == "broken":
            raise ValueError("damaged")
        return draw


def test_the_next_step_is_read_while_this_one_computes():
    reader = Reader()
    loader = iter(PrefetchLoader(reader, ["a", "b", "c"], pin=False))
    assert next(loader) == "a"
    for _ in range(2):
        assert reader.done.acquire(timeout=10)
    assert reader.read == ["a", "b"]
    assert list(loader) == ["b", "c"]


def test_an_error_while_reading_reaches_the_caller():
    loader = iter(PrefetchLoader(Reader(), ["a", "broken"], pin=False))
    assert next(loader) == "a"
    with pytest.raises(ValueError, match="damaged"):
        next(loader)


@given(st.integers(1, 6), st.integers(1, 4))
def test_ranks_divide_the_segments_of_one_process(per_step, ranks):
    def epoch(rank, ranks):
        sampler = SegmentSampler(
            experts=3,
            starts=range(2, 9),
            per_step=per_step,
            steps=4,
            seed=1,
            rank=rank,
            ranks=ranks,
        )
        return list(sampler)

    whole = epoch(0, 1)
    parts = [epoch(rank, ranks) for rank in range(ranks)]
    for step, (pairs, total) in enumerate(whole):
        assert sorted(p for part in parts for p in part[step][0]) == sorted(pairs)
        assert total == per_step == len(pairs)


def test_every_expert_and_both_ends_of_the_range_are_drawn():
    sampler = SegmentSampler(
        experts=2, starts=range(3, 6), per_step=200, steps=1, seed=0, rank=0, ranks=1
    )
    ((pairs, _),) = sampler
    assert set(pairs) == {(expert, start) for expert in (0, 1) for start in (3, 4, 5)}


def test_draws_continue_over_epochs():
    def draws(steps, epochs):
        sampler = SegmentSampler(
            experts=9, starts=range(99), per_step=1, steps=steps, seed=0, rank=0, ranks=1
        )
        pairs = []
        for epoch in range(epochs):
            sampler.set_epoch(epoch)
            pairs += list(sampler)
        return pairs

    assert draws(2, 3) == draws(6, 1) == draws(1, 6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start_max": 3}, r"segment \[3, 5\] exceeds the 4 recorded epochs: lower start_max to 2"),
        ({"span": 0}, "spans 0 epochs"),
        ({"start_min": 3}, "start_min <= start_max"),
        ({"start_min": -1}, "start_min <= start_max"),
        ({"per_step": 0}, "1 or more"),
    ],
)
def test_impossible_ranges_are_refused(subject, settings, message):
    with pytest.raises(ValueError, match=message):
        segments(subject, **settings)


@pytest.fixture(scope="module")
def trajectories(tmp_path_factory):
    """A trajectory with all epochs to 9, and one without epochs 4 to 8."""
    trajectories = []
    for epochs in (range(10), (0, 1, 2, 3, 9)):
        recorder = Recorder(tmp_path_factory.mktemp("expert"), {})
        recorder.start()
        recorder.complete(epochs)
        trajectories.append(Trajectory(recorder.path))
    return trajectories


@pytest.mark.parametrize(("span", "starts"), [(2, (0, 1)), (1, (0, 2)), (9, (0, 0)), (6, (3, 3))])
def test_a_range_may_skip_epochs_that_were_not_recorded(trajectories, span, starts):
    check_range(trajectories, span=span, start_min=starts[0], start_max=starts[1])


@pytest.mark.parametrize(
    ("span", "starts", "message"),
    [
        (
            2,
            (0, 4),
            r"segment \[2, 4\] needs epoch 4, .*\(0-3, 9\): raise .* or lower start_max to 1",
        ),
        (2, (0, 4), "raise recipe.recording.epochs to 6 or"),
        (5, (3, 4), r"\[3, 8\] needs epoch 8.* to 9 or start elsewhere"),
        (5, (4, 4), r"\[4, 9\] needs epoch 4"),
    ],
)
def test_a_range_that_needs_an_unrecorded_epoch_is_refused(trajectories, span, starts, message):
    with pytest.raises(ValueError, match=message):
        check_range(trajectories, span=span, start_min=starts[0], start_max=starts[1])


@given(st.integers(1, 500), st.integers(1, 500))
def test_epochs_fill_the_steps_exactly(steps, at_most):
    length = epoch_length(steps, at_most)
    assert steps % length == 0
    assert length <= at_most
