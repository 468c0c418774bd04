"""Accuracy and attack success before and after the recovered trigger was removed."""

from torch import nn

from cwx.data.splits import ImageSet
from cwx.evaluations.backdoor.attack_success import attacked_images
from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.evaluations.patterns.probe import Probe
from cwx.training.build import copy_network
from cwx.training.plan import Plan
from cwx.training.subject import Subject


class CureOutcome:
    """Compares the first expert with itself after the removal of a trigger.

    Of the expert (``before``), the cured network (``erased``, ``unlearned`` or ``pruned``) and the
    ``control``, which
    underwent the same without the trigger, on test images that neither the search for the trigger
    nor the cure used:

    - ``cure/<network>/accuracy``: of clean images.
    - ``cure/<network>/trigger``: the fraction of images of other classes that the recovered trigger
      sends to its class.
    - ``cure/<network>/without``: the fraction of the same images that it sends to the class without
      any trigger; success below it is no remainder of a backdoor.
    - ``cure/<network>/attack``: the success of the study's own backdoor, if it has one; this is the
      trigger that counts, and the search has not seen it. ``cure/<network>/restored`` is the
      fraction of these images that are classified as their own class despite the trigger.

    The table ``cure`` has a row per network.
    """

    on_all_ranks = True

    def check(self, plan: Plan) -> None:
        if not plan.cures:
            raise ValueError(
                "evaluation=[cure] compares a network with itself after a cure, and this study has "
                "none: add cure=erase, cure=unlearn or cure=prune, or leave cure out of "
                "evaluation=[…]"
            )

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        cure = subject.cure
        assert cure is not None
        unused = subject.data.splits.test.at(~cure.used)
        networks = {"before": subject.first_network("expert")}
        # A probe moves its network.
        networks |= {name: copy_network(network) for name, network in cure.networks.items()}
        rows: list[Row] = [
            {"network": name, **self._measure(subject, network, unused)}
            for name, network in networks.items()
        ]
        return Outcome(
            metrics={
                f"cure/{row['network']}/{name}": float(value)
                for row in rows
                for name, value in row.items()
                if name != "network"
            },
            tables={"cure": rows},
        )

    @staticmethod
    def _measure(subject: Subject, network: nn.Module, unused: ImageSet) -> dict[str, float]:
        cure, data = subject.cure, subject.data
        assert cure is not None
        probe = Probe(subject, network, unused)
        others = unused.labels != cure.label
        values = {
            "accuracy": (probe.clean == unused.labels).double().mean().item(),
            "trigger": probe.hits(cure.attach, cure.label).double().mean().item(),
            "without": (probe.clean[others] == cure.label).double().mean().item(),
        }
        backdoor = data.corrupted.backdoor
        if backdoor is not None:
            attacked = attacked_images(backdoor, unused)
            predicted = Probe(subject, network, attacked).clean
            own = unused.labels[backdoor.targets(unused.labels) != unused.labels]
            values["attack"] = (predicted == attacked.labels).double().mean().item()
            values["restored"] = (predicted == own).double().mean().item()
        return values
