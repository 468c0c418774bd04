"""The confusion matrix."""

from dataclasses import replace

import pytest
import torch

from cwx.evaluations.confusion import Confusion


def test_counts_are_those_of_the_predictions(subject):
    # Before training, it confuses classes.
    subject = replace(subject, epoch=0)
    outcome = Confusion(most=3)(subject, {})
    network, test = subject.first_network("expert"), subject.data.splits.test
    predictions = network(subject.data.normalization.from_bytes(test.images)).argmax(1)
    for c, row in enumerate(outcome.tables["confusion_classes"]):
        of_class = test.labels == c
        hits = (predictions[of_class] == c).sum().item()
        assert row["images"] == of_class.sum().item()
        assert row["accuracy"] == pytest.approx(hits / of_class.sum().item())
        name = f"confusion/accuracy/class/{subject.data.classes[c]}"
        assert outcome.metrics[name] == row["accuracy"]
    wrong = [
        (a, b, ((test.labels == a) & (predictions == b)).sum().item())
        for a in range(3)
        for b in range(3)
        if a != b
    ]
    counts = sorted((count for *_, count in wrong if count), reverse=True)[:3]
    assert counts
    assert [row["images"] for row in outcome.tables["confusion"]] == counts
    assert outcome.metrics["confusion/images/fewest"] == torch.bincount(test.labels).min()
    assert outcome.metrics["confusion/images/without"] == 0


def test_without_a_confusion_there_is_no_table_of_them(looking):
    """The logit of a class is the brightness of its column."""
    outcome = Confusion(most=3)(looking, {})
    assert {row["accuracy"] for row in outcome.tables["confusion_classes"]} == {1.0}
    assert outcome.tables.keys() == {"confusion_classes"}
