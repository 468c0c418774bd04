"""How well experts withstand adversarial images (CWX, §6.2; C14)."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from cwx.data.module import ImageData
from cwx.evaluations.outcome import Outcome, Sources, each_network, over_networks
from cwx.functional.perturb import Attack, cross_entropy
from cwx.functional.streams import stream
from cwx.networks.modes import accuracy
from cwx.subject import Subject

CLEAN = "clean"
# Normalised images, labels and their number.
_Batch = tuple[Tensor, Tensor, int]


class Robustness:
    """Accuracy of the experts on test images, clean and under attack.

    Each network meets its own adversarial images. The judges are those of `Subject.experts`;
    the accuracies, averaged over the networks of one judge, are the numbers
    ``robustness/<judge>/<attack>`` in 0-1, without an attack ``robustness/<judge>/clean``. The
    table ``robustness`` adds standard deviations.

    Args:
        attacks: by name, not targeted.
        images: at most so many test images, evenly spaced in their order; null for all.
    """

    def __init__(self, *, attacks: Mapping[str, Attack], images: int | None) -> None:
        if images is not None and images < 1:
            raise ValueError(
                f"evaluation.robustness.images is {images}: give 1 or more, or null for all"
            )
        for name, attack in attacks.items():
            place = f"evaluation.robustness.attacks.{name}"
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

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        rows = each_network(
            subject.experts(),
            lambda network: [
                {"attack": name, "accuracy": accuracy(network, batches)}
                for name, batches in self._conditions(subject.data, network)
            ],
        )
        means = over_networks(rows, values=("accuracy",))
        return Outcome(
            numbers={f"robustness/{r['judge']}/{r['attack']}": float(r["accuracy"]) for r in means},
            tables={"robustness": means, "robustness_networks": rows},
        )

    def _conditions(
        self, data: ImageData, network: nn.Module
    ) -> Iterator[tuple[str, Iterator[_Batch]]]:
        yield CLEAN, data.test_batches(self.images)
        for name, attack in self.attacks.items():
            yield name, self._attacked(data, network, attack)

    def _attacked(self, data: ImageData, network: nn.Module, attack: Attack) -> Iterator[_Batch]:
        generator = stream(0)
        for images, labels, count in data.test_batches(self.images):
            adversarial = attack(
                cross_entropy(network),
                images,
                labels,
                normalization=data.normalization,
                start=attack.draw(count, data.image_shape, generator),
            )
            yield adversarial, labels, count
