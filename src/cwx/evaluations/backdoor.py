"""Whether the backdoor of a study's training images works (CWX, §5; C12)."""

from cwx.data.corruption import Planted
from cwx.data.sources import ImageSet
from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.networks.modes import accuracy
from cwx.subject import Subject


class AttackSuccess:
    """Accuracy on clean test images, and how often the trigger leads to the target.

    ``backdoor/<judge>/accuracy`` is the share of clean test images that are labelled rightly,
    ``backdoor/<judge>/success`` that of test images of the other classes that are labelled as
    the target once they carry the trigger; both in 0-1. The judges are the explained expert
    (``expert``), experts that no method saw (``held-out-0`` …) and networks of other
    architectures, by name, which are trained on the same corrupted images.
    """

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        data, backdoor = subject.data, planted(subject, "attack_success")
        test = data.splits.test
        others = test.images[test.labels != backdoor.target]
        if not len(others):
            raise ValueError(
                "attack_success needs test images of classes other than the target "
                f"{data.classes[backdoor.target]!r}, and there are none: choose another "
                "corruption.target"
            )
        triggered = backdoor.trigger.apply(others)
        aims = test.labels.new_full((len(others),), backdoor.target)
        judges = subject.experts() | dict(subject.judges)
        rows: list[Row] = [
            {
                "judge": judge,
                "accuracy": accuracy(network, data.test_batches()),
                "success": accuracy(network, data.in_order(ImageSet(triggered, aims))),
            }
            for judge, network in judges.items()
        ]
        return Outcome(
            numbers={
                f"backdoor/{row['judge']}/{name}": float(row[name])
                for row in rows
                for name in ("accuracy", "success")
            },
            tables={"backdoor": rows},
        )


def planted(subject: Subject, evaluation: str) -> Planted:
    """The backdoor that an evaluation, named as the user chose it, is about.

    Raises:
        ValueError: the study plants none.
    """
    backdoor = subject.data.corrupted.backdoor
    if backdoor is None:
        raise ValueError(
            f"{evaluation} needs a backdoor, and this study plants none: choose one such as "
            f"corruption=badnets, or leave {evaluation} out of evaluation=[…]"
        )
    return backdoor
