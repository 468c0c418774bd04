"""Accuracy of new networks trained on the explanations alone, and on as many real images."""

import logging
import math
from collections.abc import Sequence
from typing import Annotated

import torch

from cwx.data.splits import ImageSet
from cwx.evaluations.outcome import (
    Outcome,
    Row,
    Sources,
    mean_over_networks,
    most_per_class,
    training_images,
)
from cwx.evaluations.predictions import matching_fraction, predicted_classes
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import of_kind
from cwx.functional.inner_loop import Inner
from cwx.functional.loss_derivatives import Eager
from cwx.functional.network_loss import NetworkLoss
from cwx.training.plan import Plan
from cwx.training.subject import Subject

log = logging.getLogger(__name__)

REAL = "real"
# Of the first new network.
FIRST_SEED = 10_000


class FromScratch:
    """Test accuracy of networks with new random weights after training on few images.

    This is the measure of dataset distillation. Every method that makes images is compared with
    ``real``: as many training images of each class, drawn at random. All train with the settings
    of `inner` for `steps` steps, once with each learning rate of `rates`; the rate of the highest
    mean accuracy on the test images is reported for each source, which favours all of them alike.

    Metrics: ``from_scratch/<source>``, accuracies in 0-1, means over `seeds` networks. The table
    ``from_scratch`` has the standard deviations and every rate; the accuracy is empty for a rate at
    which a network diverges.

    Args:
        inner: how to train on images: batch size, augmentation and momentum.
        steps: the number of steps of gradient descent.
        rates: learning rates to try.
        seeds: the number of networks, with the weights of seeds that no expert has by default.
        images: the number of test images, spread evenly; null for all.
    """

    on_all_ranks = True

    def __init__(
        self,
        *,
        inner: Inner,
        steps: Annotated[int, ">= 1"],
        rates: Annotated[Sequence[Annotated[float, "> 0"]], "not empty, distinct"],
        seeds: Annotated[int, ">= 1"],
        images: Annotated[int, ">= 1"] | None,
    ) -> None:
        self.inner, self.steps, self.rates = inner, steps, list(rates)
        self.seeds, self.images = seeds, images

    def check(self, plan: Plan) -> None:
        if not len(plan.data.splits.train):
            raise ValueError(
                "evaluation=[from_scratch] compares with training images, but the data have none: "
                "remove it, or choose data with training images"
            )

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        images = of_kind(sources, Explanations)
        real = training_images(subject, most_per_class(images.values()))
        test = subject.data.splits.test.spread(self.images)
        trained_on = {**images, REAL: real}

        def rows_of(training: tuple[str, int]) -> list[Row]:
            source, seed = training
            return [
                {"source": source, "rate": rate, "replicate": seed, "accuracy": accuracy}
                for rate, accuracy in self._accuracies(subject, trained_on[source], test, seed)
            ]

        trainings = [(source, seed) for source in trained_on for seed in range(self.seeds)]
        rows = [row for of_training in subject.ranks.map(rows_of, trainings) for row in of_training]
        means = mean_over_networks(rows, values=["accuracy"])
        metrics = {f"from_scratch/{source}": math.nan for source in trained_on}
        table: list[Row] = []
        for row in means:
            name, accuracy = f"from_scratch/{row['source']}", float(row["accuracy"])
            if math.isfinite(accuracy):
                metrics[name] = max(filter(math.isfinite, (metrics[name], accuracy)))
                table.append(row)
            else:
                log.warning("%s: networks diverge at the learning rate %s", name, row["rate"])
                table.append({**row, "accuracy": ""})
        return Outcome(metrics=metrics, tables={"from_scratch": table})

    def _accuracies(
        self, subject: Subject, explanations: Explanations, test: ImageSet, seed: int
    ) -> list[tuple[float, float]]:
        """(learning rate, accuracy) of one network for each rate."""
        device = subject.device
        loss = NetworkLoss(subject.network(FIRST_SEED + seed).to(device))
        start = loss.vector(dict(loss.network.named_parameters())).detach()
        images, labels = explanations.images.to(device), explanations.labels.to(device)
        descent = self.inner.descent(labels, key=(seed,), steps=self.steps)
        accuracies = []
        for rate in self.rates:
            end = descent.reach(Eager(loss), start, images, torch.tensor(rate))
            classes = predicted_classes(subject, loss, end, test)
            accuracies.append((rate, matching_fraction(classes, test.labels)))
        return accuracies
