"""The consistency loss equals its formula."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import references

from cwx.functional.consistency_loss import consistency
from cwx.functional.rng import stream

LABELS = torch.tensor([2, 0, 1, 1])


def parts(seed, dtype=torch.float64):
    """Logits of 3 classes and features of two places, of images and of adversarial ones."""
    generator = stream(seed)
    logits = [3 * torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(2)]
    features = [torch.randn(4, 5, 1, 2, generator=generator, dtype=torch.float64) for _ in range(2)]
    return [tensor.to(dtype) for tensor in (*logits, *features)]


@given(seed=st.integers(0, 2**32), alpha=st.floats(0, 1), beta=st.floats(0, 10))
def test_the_loss_equals_the_formula(seed, alpha, beta):
    given = parts(seed)
    losses = consistency(*given, LABELS, alpha=alpha, beta=beta)
    expected = [
        references.consistency(*(t[i].flatten().tolist() for t in given), label, alpha, beta)
        for i, label in enumerate(LABELS.tolist())
    ]
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))


def test_both_kinds_of_logits_and_features_get_their_gradients():
    given = [tensor.requires_grad_() for tensor in parts(0)]
    assert torch.autograd.gradcheck(
        lambda *given: consistency(*given, LABELS, alpha=0.3, beta=0.2), given
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_features_of_half_precision_are_added_up_in_single(dtype):
    """A sum of 4,096 squares of 1 is not 256, as it is where 256 + 1 is rounded to 256."""
    logits = torch.zeros(1, 3)
    features = torch.ones(1, 4096, dtype=dtype)
    losses = consistency(
        logits, logits, features, 0 * features, torch.tensor([0]), alpha=0.5, beta=1.0
    )
    assert losses.dtype == torch.float32
    assert losses.item() == pytest.approx(4096 + torch.tensor(3.0).log().item())
