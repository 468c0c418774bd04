"""How well experts withstand adversarial images (CWX, §6.2; C14; Dong et al., Appendix A; D11)."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from cwx.data.datamodule import ImageData
from cwx.evaluations.outcome import Outcome, Row, Sources, each_network, over_networks
from cwx.functional.attacks import Attack, cross_entropy
from cwx.functional.rng import stream
from cwx.networks.eval_mode import accuracies
from cwx.training.plan import Plan
from cwx.training.subject import Subject

CLEAN = "clean"
# Normalised images, labels and their number.
_Batch = tuple[Tensor, Tensor, int]


class Accuracy:
    """Accuracy of the experts on test images, clean and under attack.

    Each network meets its own adversarial images. The evaluation networks are those of `Subject.experts`;
    the accuracies, averaged over the networks of one evaluation network, are the numbers
    ``accuracy/<network>/<attack>`` in 0-1, without an attack ``accuracy/<network>/clean``, and
    with ``/top<k>`` behind them for a label among the k highest logits. The table ``robustness``
    adds standard deviations.

    Args:
        attacks: by name, not targeted.
        images: at most so many test images, evenly spaced in their order; null for all.
        top: each k, 1 for the label as the highest logit.

    Raises:
        ValueError: a setting is out of range, or an attack is targeted.
    """

    def __init__(
        self, *, attacks: Mapping[str, Attack], images: int | None, top: Sequence[int]
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
            place = f"evaluation.accuracy.attacks.{name}"
            if attack is None or name == CLEAN:
                raise ValueError(
                    f"{place}: clean images are judged anyway, so remove it, or give it an attack "
                    "and another name"
                )
            if attack.targeted:
                raise ValueError(
                    f"{place} is targeted, and would make the right label easier: "
                    f"set {place}.targeted to false"
                )
        self.attacks, self.images = dict(attacks), images
        # The column of each k.
        self.columns = {"accuracy" if k == 1 else f"top{k}": k for k in top}

    def check(self, plan: Plan) -> None:
        if (most := max(self.columns.values())) > len(plan.data.classes):
            raise ValueError(
                f"evaluation.accuracy.top has {most}, and the data have "
                f"{len(plan.data.classes)} classes: lower it"
            )

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        data, device = subject.data, subject.device
        rows = each_network(
            subject.experts(),
            lambda network: self._measured(data, network.to(device), device),
        )
        means = over_networks(rows, values=tuple(self.columns))
        return Outcome(
            metrics={
                f"accuracy/{row['network']}/{row['attack']}"
                + ("" if column == "accuracy" else f"/{column}"): float(row[column])
                for row in means
                for column in self.columns
            },
            tables={"robustness": means, "robustness_networks": rows},
        )

    def _measured(self, data: ImageData, network: nn.Module, device: torch.device) -> list[Row]:
        tops = tuple(self.columns.values())
        return [
            {"attack": name}
            | dict(zip(self.columns, accuracies(network, batches, tops), strict=True))
            for name, batches in self._conditions(data, network, device)
        ]

    def _conditions(
        self, data: ImageData, network: nn.Module, device: torch.device
    ) -> Iterator[tuple[str, Iterator[_Batch]]]:
        yield CLEAN, self._clean(data, device)
        for name, attack in self.attacks.items():
            yield name, self._attacked(data, network, attack, device)

    def _clean(self, data: ImageData, device: torch.device) -> Iterator[_Batch]:
        for images, labels, count in data.test_batches(self.images):
            yield images.to(device), labels.to(device), count

    def _attacked(
        self, data: ImageData, network: nn.Module, attack: Attack, device: torch.device
    ) -> Iterator[_Batch]:
        generator = stream(0)
        for images, labels, count in self._clean(data, device):
            adversarial = attack(
                cross_entropy(network),
                images,
                labels,
                normalization=data.normalization,
                start=attack.draw(count, data.image_shape, generator),
            )
            yield adversarial, labels, count
