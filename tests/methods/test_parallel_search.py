"""What a step makes of searches that share nothing."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cwx.data.nontarget import NontargetBatch
from cwx.methods._parallel_search import check_counts, parallel_step

BATCH = NontargetBatch(
    searches=torch.tensor([0, 2, 3, 4]),
    images=torch.arange(12).view(4, 3),
    weights=torch.tensor([[1.0, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]]),
)
MOVING = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))


def gradients(part):
    """Of half the sum of squares, once for each image."""
    count = part.weights.sum(1)
    rows = MOVING[part.searches]
    return rows * count[:, None], rows.square().sum(1) * count / 2


def step(rank, ranks, chunk, *, number=0, of=gradients):
    """What a rank adds to the gradients of what moves and rests, and the loss that it logs."""
    optimised, frozen = nn.Parameter(MOVING.clone()), nn.Parameter(torch.ones(3))
    logged = {}
    module = SimpleNamespace(
        stage="x",
        chunk=chunk,
        trainer=SimpleNamespace(world_size=ranks),
        global_rank=rank,
        global_step=number,
        step_setting="optimizer.lr",
        log=lambda name, value, **_: logged.update({name: value}),
    )
    scalar = parallel_step(
        module, BATCH, of, optimised=optimised, frozen=[frozen], area=torch.tensor(0.5)
    )
    found = torch.autograd.grad(scalar, (optimised, frozen))
    assert logged["x/area"] == 0.5
    return *found, logged["x/loss"]


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_ranks_and_chunks_make_up_one_step(ranks, chunk):
    optimised, frozen, loss = (
        torch.stack(each).mean(0)
        for each in zip(*(step(rank, ranks, chunk) for rank in range(ranks)), strict=True)
    )
    counts = torch.tensor([3.0, 0, 2, 1, 3])
    torch.testing.assert_close(optimised, MOVING * counts[:, None])
    assert not frozen.any()
    expected = (MOVING.square().sum(1) * counts).sum() / 2 / counts.sum()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("number", [0, 20])
def test_gradients_that_are_not_finite_are_refused(number):
    """Some steps are checked: a search that has diverged stays so."""

    def spoilt(part):
        rows, losses = gradients(part)
        return rows.index_fill(0, torch.tensor([1]), torch.nan), losses

    with pytest.raises(ValueError, match=rf"gradients at step {number} .*lower method\.x\.optimi"):
        step(0, 1, None, number=number, of=spoilt)


def test_counts_below_one_are_refused_by_name():
    check_counts("x", passes=1, chunk=None)
    with pytest.raises(ValueError, match=r"method\.x\.chunk is 0: give 1 or more"):
        check_counts("x", passes=1, chunk=0)
