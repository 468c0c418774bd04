"""Was the first expert taught a backdoor? A comparison with a bank of clean networks."""

from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor

from cwx.data.canvases import test_logits
from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.evaluations.verdict.decision import Evidence, State, decide
from cwx.evaluations.verdict.figures import statistics_figure
from cwx.evaluations.verdict.rates import measured_rates
from cwx.evaluations.verdict.statistics import Statistic
from cwx.evaluations.verdict.trigger import trigger_evidence
from cwx.explanations.patterns import Triggers
from cwx.functional.accuracy_tests import chance_accuracy, is_at_chance
from cwx.functional.bank_comparison import BankComparison, compare_with_bank, within_network
from cwx.functional.class_names import describe_class
from cwx.storage.metric_names import class_metric
from cwx.training.plan import Plan
from cwx.training.subject import Subject

_STATES: tuple[State, ...] = ("nothing found", "suspicious", "cannot say")


class Verdict:
    """Compares the statistics of the first expert's classes with those of clean networks.

    The decision is that of `compare_with_bank`: p is the fraction of the bank's networks and the
    suspect that look at least as suspicious as the suspect, over all classes and statistics
    together. It is not the probability of a backdoor. Without a bank there is a ranking of the
    classes and no p.

    - ``verdict/suspicious``: 1, or 0 if nothing was found; missing if neither can be said.
    - ``verdict/p``, ``verdict/score``, ``verdict/bank``: p, the largest score over statistics, and
      the number of networks in the bank.
    - ``verdict/p/<statistic>`` and ``verdict/score/<statistic>``: of one statistic alone.
    - ``verdict/excess/class/<class>``: the largest excess of a class over the bank.
    - ``verdict/trigger/success``: of the trigger of the class that stands out most, on test images
      of other classes that its search did not use; ``…/without`` is the fraction of these images
      that are classified as the class without it, ``…/bank`` the mean success on networks of the
      bank; ``…/size`` is the size of its mask as a fraction of the image.
    - ``verdict/target_right``: 1 if the class that stands out most is the target of the study's
      backdoor, else 0; only for a study with one.

    The table ``verdict`` has one row with the state and its sentence, ``verdict_statistics`` a row
    per statistic, ``verdict_classes`` a row per statistic and class. With a bank, ``verdict_rates``
    lists how often the verdict flagged clean and backdoored networks of known history
    (`measured_rates`). The figure ``verdict`` shows
    the classes over the bank, ``verdict_trigger`` the recovered trigger and images with it.

    Args:
        statistics: of every class, by name.
        alpha: the largest p-value of a suspicious network, 0-1.
        accuracy_drop: a difference in accuracy from the bank's median that allows no verdict, 0-1.
        least_images: fewer test images allow no verdict.
        images: test images that measure the recovered trigger, at most.
        trigger: the method whose trigger is shown.
    """

    def __init__(
        self,
        *,
        statistics: Mapping[str, Statistic],
        alpha: Annotated[float, "> 0, < 1"],
        accuracy_drop: Annotated[float, ">= 0, <= 1"],
        least_images: Annotated[int, ">= 1"],
        images: Annotated[int, ">= 1"],
        trigger: str,
    ) -> None:
        self.bank_statistics = dict(statistics)
        self.alpha, self.accuracy_drop = alpha, accuracy_drop
        self.least_images, self.images, self.trigger = least_images, images, trigger

    def check(self, plan: Plan) -> None:
        needs = {
            f"evaluation.verdict.statistics.{name}.source": (statistic.source, statistic.needs)
            for name, statistic in self.bank_statistics.items()
        }
        needs["evaluation.verdict.trigger"] = self.trigger, Triggers
        for setting, (source, form) in needs.items():
            if plan.leaves.get(source) is not form:
                raise ValueError(
                    f"{setting} is {source!r}, which is no method of this study that leaves "
                    f"{form.__name__.lower()}: add {source} to method=[…], or leave the statistic "
                    "out"
                )
            if plan.explains.get(source, "expert") != "expert":
                raise ValueError(
                    f"{setting} is {source!r}, which explains {plan.explains[source]!r}: a verdict "
                    "is about the first expert; set its explains to expert"
                )
        if not self.bank_statistics:
            raise ValueError(
                "evaluation.verdict.statistics is empty: give at least one, or leave verdict out"
            )

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        own: dict[str, Tensor] = {}
        for statistic in self.bank_statistics.values():
            own |= statistic(subject, sources[statistic.source])
        names, values = list(own), torch.stack(list(own.values()))
        bank = subject.bank
        comparison = None
        if bank.statistics:
            of_bank = torch.stack([bank.statistics[name] for name in names], dim=1)
            comparison = compare_with_bank(values, of_bank)
        excess = comparison.excess if comparison else within_network(values)
        largest = excess.nan_to_num(-torch.inf).amax(0)
        label = comparison.label if comparison else int(largest.argmax())
        state, sentence = self._decide(subject, comparison, label)
        triggers = sources[self.trigger]
        assert isinstance(triggers, Triggers)
        trigger = trigger_evidence(subject, triggers, label, self.images)
        metrics = self._metrics(subject, state, comparison, label, excess)
        if trigger is not None:
            metrics |= trigger.metrics
        row: Row = {
            "verdict": state,
            "class": subject.data.classes[label],
            "p": comparison.p if comparison else "",
            "bank": len(bank),
            "sentence": sentence,
        }
        tables: dict[str, list[Row]] = {
            "verdict": [row],
            "verdict_classes": _class_rows(subject, names, values, excess),
        }
        if comparison is not None:
            tables["verdict_statistics"] = _statistic_rows(subject, names, values, of_bank)
            tables["verdict_rates"] = measured_rates()
            metrics |= {
                f"verdict/{column}/{line['statistic']}": float(line[column])
                for line in tables["verdict_statistics"]
                for column in ("p", "score")
            }
        figures = {"verdict": statistics_figure(names, excess, comparison, subject.data.classes)}
        if trigger is not None:
            figures["verdict_trigger"] = trigger.figure
        return Outcome(metrics=metrics, tables=tables, figures=figures)

    def _decide(
        self, subject: Subject, comparison: BankComparison | None, label: int
    ) -> tuple[State, str]:
        data, bank = subject.data, subject.bank
        labels = data.splits.test.labels
        network = subject.first_network("expert").to(subject.device)
        predictions = test_logits(network, data, subject.device).argmax(1)
        accuracy = (predictions == labels).double().mean().item()
        classes = len(data.classes)
        evidence = Evidence(
            comparison=comparison,
            bank=len(bank),
            accuracy=accuracy,
            # Few images cannot show that a network is at chance.
            at_chance=accuracy <= chance_accuracy(predictions, labels, classes)
            or is_at_chance(predictions, labels, classes),
            bank_accuracies=bank.accuracies,
            images=len(labels),
            top_class=describe_class(label, data.classes),
            searched=list(self.bank_statistics),
        )
        return decide(
            evidence,
            alpha=self.alpha,
            accuracy_drop=self.accuracy_drop,
            least_images=self.least_images,
        )

    @staticmethod
    def _metrics(
        subject: Subject,
        state: State,
        comparison: BankComparison | None,
        label: int,
        excess: Tensor,
    ) -> dict[str, float]:
        data = subject.data
        metrics = {"verdict/bank": float(len(subject.bank))}
        if state != "cannot say":
            metrics["verdict/suspicious"] = float(state == "suspicious")
        if comparison is not None:
            metrics |= {"verdict/p": comparison.p, "verdict/score": comparison.score}
        largest = excess.nan_to_num(-torch.inf).amax(0)
        metrics |= {
            class_metric("verdict/excess", name): value
            for name, value in zip(data.classes, largest.tolist(), strict=True)
        }
        backdoor = data.corrupted.backdoor
        if backdoor is not None and backdoor.target is not None:
            metrics["verdict/target_right"] = float(label == backdoor.target)
        return metrics


def _class_rows(subject: Subject, names: list[str], values: Tensor, excess: Tensor) -> list[Row]:
    bank = subject.bank.statistics
    rows: list[Row] = []
    for index, name in enumerate(names):
        for label, class_name in enumerate(subject.data.classes):
            row: dict[str, str | int | float] = {
                "statistic": name,
                "class": class_name,
                "value": values[index, label].item(),
                "excess": excess[index, label].item(),
            }
            if bank:
                of_bank = bank[name][:, label]
                for column, quantile in (("bank_median", 0.5), ("bank_highest", 1.0)):
                    row[column] = of_bank.quantile(quantile).item()
            rows.append(row)
    return rows


def _statistic_rows(subject: Subject, names: list[str], values: Tensor, bank: Tensor) -> list[Row]:
    rows: list[Row] = []
    for index, name in enumerate(names):
        alone = compare_with_bank(values[index : index + 1], bank[:, index : index + 1])
        rows.append(
            {
                "statistic": name,
                "p": alone.p,
                "score": alone.score,
                "class": subject.data.classes[alone.label],
            }
        )
    return rows
