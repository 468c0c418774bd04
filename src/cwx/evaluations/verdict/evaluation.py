"""Was the first expert taught a backdoor? A comparison with a bank of clean networks."""

from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor

from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.evaluations.predictions import divided_logits
from cwx.evaluations.verdict.decision import Evidence, State, decide
from cwx.evaluations.verdict.figures import statistics_figure
from cwx.evaluations.verdict.ranking import Ranking, rank_classes
from cwx.evaluations.verdict.rates import measured_rates
from cwx.evaluations.verdict.statistics import Statistic
from cwx.evaluations.verdict.trigger import TriggerEvidence, trigger_evidence
from cwx.functional.accuracy_tests import chance_accuracy, is_at_chance
from cwx.functional.bank_comparison import compare_with_bank
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
    - ``verdict/others``: the number of other classes that stand out at least half as much as the
      first, by the statistic that decides; only with a bank. A backdoor with one target raises one
      class, another recipe than the bank's raises several.
    - ``verdict/trigger/success``: of the trigger of the class that stands out most, on test images
      of other classes that its search did not use; ``…/without`` is the fraction of these images
      that are classified as the class without it, ``…/bank`` the mean success on networks of the
      bank; ``…/size`` is the size of its mask as a fraction of the image. The trigger is that of
      the statistic by which the class stands out most.
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
    """

    on_all_ranks = True

    def __init__(
        self,
        *,
        statistics: Mapping[str, Statistic],
        alpha: Annotated[float, "> 0, < 1"],
        accuracy_drop: Annotated[float, ">= 0, <= 1"],
        least_images: Annotated[int, ">= 1"],
        images: Annotated[int, ">= 1"],
    ) -> None:
        self.bank_statistics = dict(statistics)
        self.alpha, self.accuracy_drop = alpha, accuracy_drop
        self.least_images, self.images = least_images, images

    def check(self, plan: Plan) -> None:
        for name, statistic in self.bank_statistics.items():
            setting = f"evaluation.verdict.statistics.{name}.source"
            source, form = statistic.source, statistic.needs
            if plan.leaves.get(source) is not form:
                raise ValueError(
                    f"{setting} is {source!r}, which is no method of this study that leaves "
                    f"{form.__name__.lower()}: add {source} to method=[…], or leave the statistic "
                    f"out (~evaluation.verdict.statistics.{name})"
                )
            if plan.explains.get(source, "expert") != "expert":
                raise ValueError(
                    f"{setting} is {source!r}, which explains {plan.explains[source]!r}: a verdict "
                    "is about the first expert; set its explains to expert"
                )
            plan.require_images_outside(setting, source)
        if not self.bank_statistics:
            raise ValueError(
                "evaluation.verdict.statistics is empty: give at least one, or leave verdict out"
            )

    def suspected_class(self, subject: Subject, sources: Sources) -> int:
        """The index of the class that stands out most."""
        return rank_classes(self.bank_statistics, subject, sources).label

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        ranking = rank_classes(self.bank_statistics, subject, sources)
        state, sentence = self._decide(subject, ranking)
        trigger = self._trigger(subject, sources, ranking)
        metrics = self._metrics(subject, state, ranking)
        row: Row = {
            "verdict": state,
            "class": subject.data.classes[ranking.label],
            "p": ranking.comparison.p if ranking.comparison else "",
            "bank": len(subject.bank),
            "trigger": "" if trigger is None else trigger.kind,
            "sentence": sentence,
        }
        tables: dict[str, list[Row]] = {
            "verdict": [row],
            "verdict_classes": _class_rows(subject, ranking),
        }
        if ranking.bank is not None:
            tables["verdict_statistics"] = _statistic_rows(subject, ranking, ranking.bank)
            tables["verdict_rates"] = measured_rates()
            metrics |= {
                f"verdict/{column}/{line['statistic']}": float(line[column])
                for line in tables["verdict_statistics"]
                for column in ("p", "score")
            }
        classes = subject.data.classes
        chart = statistics_figure(ranking.names, ranking.excess, ranking.comparison, classes)
        figures = {"verdict": chart}
        if trigger is not None:
            metrics |= trigger.metrics
            figures["verdict_trigger"] = trigger.figure
        return Outcome(metrics=metrics, tables=tables, figures=figures)

    def _trigger(
        self, subject: Subject, sources: Sources, ranking: Ranking
    ) -> TriggerEvidence | None:
        """Of the first statistic that has a trigger, those that decide first."""
        for name in ranking.order:
            statistic = ranking.statistics[name]
            trigger = statistic.trigger(sources[statistic.source], ranking.label, name)
            if trigger is not None:
                return trigger_evidence(subject, trigger, self.images)
        return None

    def _decide(self, subject: Subject, ranking: Ranking) -> tuple[State, str]:
        data, bank = subject.data, subject.bank
        labels = data.splits.test.labels
        network = subject.first_network("expert")
        predictions = divided_logits(subject, network).argmax(1)
        accuracy = (predictions == labels).double().mean().item()
        classes = len(data.classes)
        evidence = Evidence(
            comparison=ranking.comparison,
            bank=len(bank),
            accuracy=accuracy,
            # Few images cannot show that a network is at chance.
            at_chance=accuracy <= chance_accuracy(predictions, labels, classes)
            or is_at_chance(predictions, labels, classes),
            bank_accuracies=bank.accuracies,
            images=len(labels),
            top_class=describe_class(ranking.label, data.classes),
            other_classes=[describe_class(label, data.classes) for label in ranking.others],
            searched=list(self.bank_statistics),
        )
        return decide(
            evidence,
            alpha=self.alpha,
            accuracy_drop=self.accuracy_drop,
            least_images=self.least_images,
        )

    @staticmethod
    def _metrics(subject: Subject, state: State, ranking: Ranking) -> dict[str, float]:
        data = subject.data
        metrics = {"verdict/bank": float(len(subject.bank))}
        if state != "cannot say":
            metrics["verdict/suspicious"] = float(state == "suspicious")
        if ranking.comparison is not None:
            comparison = ranking.comparison
            metrics |= {"verdict/p": comparison.p, "verdict/score": comparison.score}
            metrics["verdict/others"] = float(len(ranking.others))
        largest = ranking.excess.nan_to_num(-torch.inf).amax(0)
        metrics |= {
            class_metric("verdict/excess", name): value
            for name, value in zip(data.classes, largest.tolist(), strict=True)
        }
        backdoor = data.corrupted.backdoor
        if backdoor is not None and backdoor.target is not None:
            metrics["verdict/target_right"] = float(ranking.label == backdoor.target)
        return metrics


def _class_rows(subject: Subject, ranking: Ranking) -> list[Row]:
    rows: list[Row] = []
    for index, name in enumerate(ranking.names):
        for label, class_name in enumerate(subject.data.classes):
            row: dict[str, str | int | float] = {
                "statistic": name,
                "class": class_name,
                "value": ranking.values[index, label].item(),
                "excess": ranking.excess[index, label].item(),
            }
            if ranking.bank is not None:
                of_bank = ranking.bank[:, index, label]
                for column, quantile in (("bank_median", 0.5), ("bank_highest", 1.0)):
                    row[column] = of_bank.quantile(quantile).item()
            rows.append(row)
    return rows


def _statistic_rows(subject: Subject, ranking: Ranking, bank: Tensor) -> list[Row]:
    rows: list[Row] = []
    for index, name in enumerate(ranking.names):
        alone = compare_with_bank(ranking.values[index : index + 1], bank[:, index : index + 1])
        rows.append(
            {
                "statistic": name,
                "p": alone.p,
                "score": alone.score,
                "class": subject.data.classes[alone.label],
            }
        )
    return rows
