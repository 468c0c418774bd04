"""The accuracy of an imported network in the other ways in which programs pass images to it."""

from typing import Annotated

from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.training.importing.accuracy_check import NetworkTrials
from cwx.training.importing.trials import Trial
from cwx.training.subject import Subject


class UsualWays:
    """The first expert's accuracy as configured, and with other usual sizes, normalisations, ….

    ``usual_ways/configured`` and ``usual_ways/best`` are accuracies in 0-1 on the same test images,
    the latter of the most accurate other way. The table ``usual_ways`` lists the ways, the most
    accurate first: a configured way far below another is probably not that of the training.

    Args:
        most: rows of the table.
    """

    def __init__(self, *, most: Annotated[int, ">= 1"]) -> None:
        self.most = most

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        network = subject.first_network("expert")
        trials = NetworkTrials(network, subject.data, subject.device)
        others = sorted(trials.others(), key=lambda trial: -trial.accuracy)
        metrics = {"usual_ways/configured": trials.present.accuracy}
        if others:
            metrics["usual_ways/best"] = others[0].accuracy
        rows = [_row(trials.present, "as configured")]
        rows += [_row(trial, ", ".join(trial.changes)) for trial in others[: self.most]]
        return Outcome(metrics=metrics, tables={"usual_ways": rows})


def _row(trial: Trial, way: str) -> Row:
    return {"way": way, "accuracy": trial.accuracy, "images": int(trial.is_measured.sum())}
