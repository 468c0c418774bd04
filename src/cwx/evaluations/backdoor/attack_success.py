"""Whether the backdoor of a study's training images works (CWX, §5; C12)."""

from torch import nn

from cwx.data.corruption import Planted
from cwx.data.datamodule import ImageData
from cwx.data.splits import ImageSet
from cwx.evaluations.outcome import Outcome, Row, Sources, each_network, over_networks
from cwx.networks.eval_mode import accuracy
from cwx.training.plan import Plan
from cwx.training.subject import Subject


class AttackSuccess:
    """Accuracy on clean test images, and how often the trigger leads to the target.

    ``attack_success/<network>/accuracy`` is the share of clean test images that are labelled rightly,
    ``attack_success/<network>/success`` that of test images of the other classes that are labelled as
    the target once they carry the trigger; both in 0-1. The evaluation networks are those of `Subject.panel`:
    but for ``purified``, they are trained on the corrupted images. What several networks of one
    evaluation network do is averaged; the table ``backdoor`` adds standard deviations.
    """

    def check(self, plan: Plan) -> None:
        target = planted(plan.data, "attack_success").target
        if not (plan.data.splits.test.labels != target).any():
            raise ValueError(
                "attack_success needs test images of classes other than the target "
                f"{plan.data.classes[target]!r}, and there are none: choose another "
                "corruption.target"
            )

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        data, backdoor = subject.data, planted(subject.data, "attack_success")
        test = data.splits.test
        others = test.images[test.labels != backdoor.target]
        triggered = backdoor.trigger.apply(others)
        aims = test.labels.new_full((len(others),), backdoor.target)

        def measure(network: nn.Module) -> list[Row]:
            success = accuracy(network, data.in_order(ImageSet(triggered, aims)))
            return [{"accuracy": accuracy(network, data.test_batches()), "success": success}]

        rows = each_network(subject.panel(), measure)
        means = over_networks(rows, values=("accuracy", "success"))
        return Outcome(
            metrics={
                f"attack_success/{row['network']}/{name}": float(row[name])
                for row in means
                for name in ("accuracy", "success")
            },
            tables={"backdoor": means, "backdoor_networks": rows},
        )


def planted(data: ImageData, evaluation: str) -> Planted:
    """The backdoor in `data` that an evaluation, named as the user chose it, is about.

    Raises:
        ValueError: the study plants none.
    """
    backdoor = data.corrupted.backdoor
    if backdoor is None:
        raise ValueError(
            f"{evaluation} needs a backdoor, and this study plants none: choose one such as "
            f"corruption=badnets, or leave {evaluation} out of evaluation=[…]"
        )
    return backdoor
