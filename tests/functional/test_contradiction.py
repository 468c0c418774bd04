import pytest
import torch

from cwx.functional.contradiction import contradiction

SIMILARITY = torch.tensor([[1, 0.2, 0], [0.2, 1, 0], [0, 0, 1], [0, 0, 0], [0.4, 0.4, 0.4]])


def score(weights, predicted):
    return contradiction(torch.tensor([weights]), SIMILARITY, torch.tensor([predicted])).item()


def test_units_of_the_predicted_class_agree_and_those_of_another_contradict():
    assert score([0.0, 0, 3, 0, 0], 2) == pytest.approx(-1)
    assert score([0.0, 0, 3, 0, 0], 0) == pytest.approx(1)
    # A close class contradicts less.
    assert score([2.0, 0, 0, 0, 0], 1) == pytest.approx(0.8)


def test_the_score_equals_the_formula():
    weights, predicted = (
        torch.randn(6, 5, generator=torch.Generator().manual_seed(0)),
        [0, 1, 2] * 2,
    )
    scores = contradiction(weights, SIMILARITY, torch.tensor(predicted))
    for row, label, value in zip(weights.tolist(), predicted, scores.tolist(), strict=True):
        total = sum(abs(row[i]) for i in (0, 1, 2, 4))
        evidence = [sum(row[i] * SIMILARITY[i, k].item() for i in range(5)) for k in range(3)]
        others = max(evidence[k] for k in range(3) if k != label)
        assert value == pytest.approx((others - evidence[label]) / total, rel=1e-5)
        assert -1 <= value <= 1


def test_units_without_evidence_do_not_count():
    assert score([0.0, 0, 0, 0, 0], 1) == 0
    assert score([0.0, 0, 0, 5, 0], 1) == 0
    assert score([0.0, 0, 2, 50, 0], 2) == pytest.approx(-1)
    # A unit of all classes alike moves the score towards 0.
    assert score([0.0, 0, 1, 0, 3], 2) == pytest.approx(-0.25)
