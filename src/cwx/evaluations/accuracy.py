"""Test accuracy of experts, clean and under attack (CWX, §6.2; Dong et al., App. A)."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn

from cwx.data.datamodule import ImageData
from cwx.evaluations.outcome import Outcome, Row, Sources, mean_over_networks, measure_networks
from cwx.functional.attacks import Attack, cross_entropy
from cwx.functional.rng import stream
from cwx.networks.eval_mode import correct_counts
from cwx.training.plan import Plan
from cwx.training.ranks import Ranks
from cwx.training.subject import Subject

CLEAN = "clean"
# Normalised images, labels and their number.
_Batch = tuple[Tensor, Tensor, int]


class Accuracy:
    """Accuracy of the experts on test images, clean and under attack.

    Adversarial images are computed for each network. The networks are those of `Subject.experts`
    and, if asked, the evaluation networks.
    Accuracies, averaged over the networks of one kind, are the metrics
    ``accuracy/<network>/<attack>`` in 0-1, without an attack ``accuracy/<network>/clean``; with
    the suffix ``/top<k>`` if the label may be any of the k highest logits. The table ``accuracy``
    adds standard deviations, ``accuracy_networks`` has a row per network.

    Args:
        attacks: untargeted attacks by name.
        images: at most so many test images, evenly spaced among those of all classes; null for
            all.
        evaluation_networks: whether to measure these networks as well.
        top: each k of top-k accuracy; 1 if the label must have the highest logit.

    Raises:
        ValueError: a setting is out of range, or an attack is targeted.
    """

    on_all_ranks = True

    def __init__(
        self,
        *,
        attacks: Mapping[str, Attack],
        images: Annotated[int, ">= 1"] | None,
        evaluation_networks: bool,
        top: Annotated[Sequence[Annotated[int, ">= 1"]], "distinct"],
    ) -> None:
        if not top or min(top) < 1 or len({*top}) < len(top):
            raise ValueError(
                f"evaluation.accuracy.top is {list(top)}: give numbers of logits, 1 or more, "
                "each once"
            )
        if images is not None and images < 1:
            raise ValueError(
                f"evaluation.accuracy.images is {images}: give 1 or more, or null for all"
            )
        for name, attack in attacks.items():
            setting = f"evaluation.accuracy.attacks.{name}"
            if attack is None or name == CLEAN:
                raise ValueError(
                    f"{setting}: clean accuracy is always measured: remove this entry, or give it "
                    "an attack and another name"
                )
            if attack.targeted:
                raise ValueError(
                    f"{setting} is targeted, which may raise the accuracy: "
                    f"set {setting}.targeted to false"
                )
        self.attacks, self.images = dict(attacks), images
        self.evaluation_networks = evaluation_networks
        # The table's column for each k.
        self.columns = {"accuracy" if k == 1 else f"top{k}": k for k in top}

    def check(self, plan: Plan) -> None:
        if (most := max(self.columns.values())) > len(plan.data.classes):
            raise ValueError(
                f"evaluation.accuracy.top has {most}, and the data have "
                f"{len(plan.data.classes)} classes: lower it"
            )
        for name, attack in self.attacks.items():
            try:
                # A user's own attack may be any function.
                if check := getattr(attack, "check", None):
                    check(plan.data.image_shape)
            except ValueError as error:
                raise ValueError(f"evaluation.accuracy.attacks.{name}: {error}") from error

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        data, device = subject.data, subject.device
        rows = measure_networks(
            subject.panel() if self.evaluation_networks else subject.experts(),
            lambda network: self._rows(data, network, device, subject.ranks),
        )
        means = mean_over_networks(rows, values=tuple(self.columns))
        return Outcome(
            metrics={
                f"accuracy/{row['network']}/{row['attack']}"
                + ("" if column == "accuracy" else f"/{column}"): float(row[column])
                for row in means
                for column in self.columns
            },
            tables={"accuracy": means, "accuracy_networks": rows},
        )

    def _rows(
        self, data: ImageData, network: nn.Module, device: torch.device, ranks: Ranks
    ) -> list[Row]:
        """The accuracies of one network, a row per attack."""
        tops, rows = tuple(self.columns.values()), list[Row]()
        for name, batches in self._conditions(data, network, device, ranks):
            counts = ranks.collect(partial(correct_counts, network, batches, tops))
            total, *correct = map(sum, zip(*counts, strict=True))
            fractions = [count / total for count in correct]
            rows.append({"attack": name, **dict(zip(self.columns, fractions, strict=True))})
        return rows

    def _conditions(
        self, data: ImageData, network: nn.Module, device: torch.device, ranks: Ranks
    ) -> Iterator[tuple[str, Iterator[_Batch]]]:
        """The test batches of this rank, clean and under each attack, by name."""
        yield CLEAN, self._clean_batches(data, device, ranks)
        for name, attack in self.attacks.items():
            yield name, self._adversarial_batches(data, network, attack, device, ranks)

    def _clean_batches(
        self, data: ImageData, device: torch.device, ranks: Ranks
    ) -> Iterator[_Batch]:
        batches = data.test_batches(self.images, first=ranks.index, step=ranks.count)
        for images, labels, count in batches:
            yield images.to(device), labels.to(device), count

    def _adversarial_batches(
        self,
        data: ImageData,
        network: nn.Module,
        attack: Attack,
        device: torch.device,
        ranks: Ranks,
    ) -> Iterator[_Batch]:
        generator, own = stream(0), self._clean_batches(data, device, ranks)
        test = data.splits.test.spread_indices(self.images)
        for number, indices in enumerate(test.split(data.batch_size)):
            # Drawn for every batch, so that each has the start that it has on one rank.
            start = attack.draw(len(indices), data.image_shape, generator)
            if ranks.has(number):
                images, labels, count = next(own)
                adversarial = attack(
                    cross_entropy(network),
                    images,
                    labels,
                    normalization=data.normalization,
                    start=start,
                )
                yield adversarial, labels, count
