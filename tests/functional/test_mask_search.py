import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cwx.functional.images import Normalization
from cwx.functional.mask_search import (
    SignDescent,
    best_weights,
    binarise,
    mix,
    pixels,
    search_gradients,
    search_loss,
    sort_keys,
    threshold,
    tie_counts,
    total_variation,
)
from cwx.functional.rng import stream


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=stream(seed), dtype=torch.float64)


def test_an_open_mask_shows_the_canvas_and_a_closed_one_the_image():
    canvases, images = drawn(2, 3, 4, 5), drawn(2, 6, 3, 4, 5, seed=1)
    masks = torch.zeros(2, 4, 5, dtype=torch.float64)
    masks[1], masks[0, 1, 2] = 1, 0.25
    mixed = mix(masks, canvases, images)
    assert torch.equal(mixed[1], canvases[1].expand(6, -1, -1, -1))
    assert torch.equal(mixed[0, :, :, 0], images[0, :, :, 0])
    expected = 0.25 * canvases[0, :, 1, 2] + 0.75 * images[0, 3, :, 1, 2]
    torch.testing.assert_close(mixed[0, 3, :, 1, 2], expected)


def test_the_loss_equals_the_formula_of_the_paper():
    logits, masks = drawn(2, 3, 4), drawn(2, 2, 3, seed=1)
    labels = torch.tensor([1, 3])
    weights = torch.tensor([[1, 1, 1], [1, 1, 0]], dtype=torch.float64)
    found = search_loss(logits, masks, labels, weights, alpha=0.2, beta=0.7)
    for s, count in enumerate((3, 2)):
        m = masks[s]
        edges = sum((m[1, x] - m[0, x]) ** 2 for x in range(3))
        edges += sum((m[y, x + 1] - m[y, x]) ** 2 for y in range(2) for x in range(2))
        own = sum(-logits[s, j].softmax(0)[labels[s]].log() for j in range(count))
        expected = own + count * (0.2 * m.sum() / 6 + 0.7 * edges / 6)
        torch.testing.assert_close(found[s], expected)


def test_the_gradient_of_the_loss_passes_gradcheck():
    masks, logits = drawn(2, 3, 3).requires_grad_(), drawn(2, 2, 4, seed=1).requires_grad_()
    labels, weights = torch.tensor([0, 2]), torch.ones(2, 2, dtype=torch.float64)

    def loss(masks, logits):
        return search_loss(logits, masks, labels, weights, alpha=0.3, beta=0.5)

    assert torch.autograd.gradcheck(loss, (masks, logits))


def test_a_flat_mask_has_no_variation():
    assert total_variation(torch.full((2, 3, 4), 0.3)).tolist() == [0, 0]


@pytest.mark.parametrize("canvas", [False, True])
def test_searches_do_not_influence_each_other(canvas):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(18, 4)).double()
    masks, canvases = drawn(3, 3, 3), drawn(3, 2, 3, 3, seed=1)
    images, labels = drawn(3, 2, 2, 3, 3, seed=2), torch.tensor([0, 1, 3])
    weights = torch.tensor([[1, 1], [1, 0], [1, 1]], dtype=torch.float64)
    settings = {
        "normalization": Normalization(mean=(0.5, 0.4), std=(0.2, 0.3)),
        "alpha": 0.2,
        "beta": 0.1,
        "canvas": canvas,
    }

    def found(rows):
        given = (t[rows] for t in (masks, canvases, images, labels, weights))
        return search_gradients(network, *given, **settings)

    together = found(slice(None))
    for row in range(3):
        for whole, alone in zip(together, found([row]), strict=True):
            torch.testing.assert_close(whole[row : row + 1], alone)
    assert together[0].shape == (canvases if canvas else masks).shape
    # Padding has weight 0.
    images[1, 1] = 0
    assert torch.equal(found(slice(None))[0], together[0])
    assert all(p.grad is None for p in network.parameters())


@given(st.integers(1, 12), st.integers(0, 3), st.integers(0, 5))
def test_a_cut_mask_has_exactly_its_pixels_and_they_are_the_highest(count, levels, seed):
    masks = torch.randint(0, levels + 1, (3, 3, 4), generator=stream(seed)) / max(levels, 1)
    chosen = binarise(masks, count, stream(seed))
    assert chosen.flatten(1).sum(1).tolist() == [count] * 3
    for mask, kept in zip(masks, chosen, strict=True):
        if not kept.all():
            assert mask[kept].min() >= mask[~kept].max()


def test_ties_are_drawn_by_the_seed():
    flat = torch.full((1, 8, 8), 0.3)
    first, same, other = (binarise(flat, 5, stream(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    # All places are drawn alike.
    counts = sum(binarise(flat, 16, stream(seed)).int() for seed in range(200))
    assert counts.min() > 20
    assert counts.max() < 85


def test_rounding_errors_do_not_decide_ties():
    steps = torch.tensor([0.5]).repeat(4)
    up_and_down = steps + 0.02 - 0.02 + 0.02 - 0.02
    masks = torch.stack([steps, up_and_down]).view(1, 2, 4)
    assert tie_counts(sort_keys(masks), 3).tolist() == [8]
    chosen = sum(binarise(sort_keys(masks), 4, stream(seed)).int() for seed in range(50))
    assert chosen.min() > 5


@pytest.mark.parametrize(
    ("levels", "count", "expected"),
    [([1, 1, 0, 0], 2, 0), ([1, 1, 1, 0], 2, 3), ([1, 0.5, 0.5, 0], 2, 2), ([1, 1, 0, 0], 4, 0)],
)
def test_ties_are_counted_where_they_decide(levels, count, expected):
    assert tie_counts(torch.tensor(levels).view(1, 2, 2).float(), count).tolist() == [expected]


@pytest.mark.parametrize(("fraction", "count"), [(0.01, 10), (0.05, 51), (0.1, 102), (1, 1024)])
def test_a_fraction_is_rounded_to_pixels(fraction, count):
    assert pixels(fraction, 32, 32) == count


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, 0.0004])
def test_a_pattern_without_pixels_is_refused(fraction):
    with pytest.raises(ValueError, match="has .* pixels: give sizes above 0.00049"):
        pixels(fraction, 32, 32)


def test_sign_descent_takes_equal_steps():
    parameter = torch.nn.Parameter(torch.tensor([0.5, 0.5, 0.5]))
    parameter.grad = torch.tensor([1e-9, -3.0, 0.0])
    SignDescent([parameter], lr=0.02).step()
    torch.testing.assert_close(parameter.data, torch.tensor([0.48, 0.52, 0.5]))


def test_tie_breakers_order_only_pixels_that_tie():
    masks = torch.tensor([[[1, 1, 1], [0.98, 0.5, 0]]])
    seconds = torch.tensor([[[0.2, 0.9, 0.4], [1, 1, 1]]])
    ranks = sort_keys(masks, seconds)
    for count, expected in ((1, [1]), (2, [1, 2]), (3, [0, 1, 2]), (4, [0, 1, 2, 3])):
        chosen = binarise(ranks, count, stream(0)).flatten().nonzero()[:, 0].tolist()
        assert chosen == expected
        assert tie_counts(ranks, count).tolist() == [0]


def test_a_threshold_keeps_the_pixels_above_it():
    # Steps of 0.02 give 0.98 up to rounding errors.
    reached = torch.tensor(0.5) + sum(torch.tensor(0.02) for _ in range(24))
    masks = torch.stack([reached, torch.tensor(0.99), torch.tensor(0.9), torch.tensor(1.0)])
    for gamma, expected in ((0.98, [0, 1, 0, 1]), (0.96, [1, 1, 0, 1]), (0.9, [1, 1, 0, 1])):
        kept = threshold(masks.view(1, 2, 2), gamma)
        assert kept.flatten().tolist() == [bool(value) for value in expected]


def test_a_higher_threshold_keeps_fewer_of_the_same_pixels():
    masks = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    kept = [threshold(masks, gamma) for gamma in (0.0, 0.3, 0.6, 0.9)]
    for lower, higher in zip(kept, kept[1:], strict=False):
        assert (higher <= lower).all()
        assert higher.sum() < lower.sum()


@pytest.mark.parametrize(
    ("success", "expected"),
    [
        # Searches of classes 4, 2 and 4.
        ([[0.1, 0.5, 0.1], [0.2, 0.4, 0.2]], [1, 0, 1]),
        ([[0.9, 0.0, 0.0], [0.4, 0.1, 0.4]], [0, 1, 0]),
        ([[0.3, 0.0, 0.3], [0.3, 0.0, 0.3]], [0, 0, 0]),
    ],
)
def test_the_weight_of_a_class_has_the_highest_mean_success(success, expected):
    chosen = best_weights(torch.tensor(success), torch.tensor([4, 2, 4]))
    assert chosen.tolist() == expected


def test_searches_may_have_weights_of_their_own():
    logits, masks = torch.randn(3, 2, 4), torch.rand(3, 5, 6)
    labels, weights = torch.tensor([0, 1, 3]), torch.tensor([[1.0, 1], [1, 0], [1, 1]])
    alphas = torch.tensor([0.0, 0.2, 0.7])
    together = search_loss(logits, masks, labels, weights, alpha=alphas, beta=0.3)
    for row, alpha in enumerate(alphas.tolist()):
        only = slice(row, row + 1)
        alone = search_loss(
            logits[only], masks[only], labels[only], weights[only], alpha=alpha, beta=0.3
        )
        assert torch.equal(alone, together[only])
