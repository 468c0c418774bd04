"""How well explanations lead to the poisoned training images (CWX, §5; C12)."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cwx.evaluations.backdoor.attack_success import planted
from cwx.evaluations.backdoor.suspects import Suspicion, check_suspicions, suspicions
from cwx.evaluations.outcome import Outcome, Row, Sources, baselines
from cwx.explanations.drawing import sheet, shorten
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import of_kind
from cwx.training.plan import Plan
from cwx.training.subject import Subject

VALUES = ("precision", "recall", "first_precision", "first_recall", "separation")
# Images of a kind in the figure.
SHOWN = 10


class PoisonDetection:
    """Precision and recall of what each source leads to suspect, beside the baselines.

    ``poison_detection/<source>/precision`` is the share of suspected images that are poisoned (0 if none
    is suspected), ``…/recall`` that of poisoned images that are suspected, and ``…/separation``
    how well the best class falls into two groups; all in 0-1. ``first_precision`` and
    ``first_recall`` are of the pattern as it is revealed, before the groups that it leads to
    improve it: what the explanation contributes by itself. The table ``separation`` gives
    it for every class, and the figure shows images that the first source suspects and, of the same
    class, images that it does not. Nothing that is suspected rests on the true trigger or target.

    Args:
        separation: how well a class must fall into two groups to be suspected, 0-1.
    """

    def __init__(self, *, separation: float) -> None:
        self.separation = separation

    def check(self, plan: Plan) -> None:
        planted(plan.data, "detection")
        check_suspicions(plan.data, self.separation, "evaluation.poison_detection")

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        everything = {**of_kind(sources, Explanations), **baselines(subject, sources)}
        found = suspicions(subject.data, everything, separation=self.separation)
        classes, is_corrupted = subject.data.classes, subject.data.corrupted.is_corrupted
        rows: list[Row] = []
        for source, suspicion in found.items():
            precision, recall = _agreement(suspicion.suspected, is_corrupted)
            first_precision, first_recall = _agreement(suspicion.at_first, is_corrupted)
            rows.append(
                {
                    "source": source,
                    "suspected_class": "" if suspicion.label is None else classes[suspicion.label],
                    "suspected": int(suspicion.suspected.sum()),
                    "precision": precision,
                    "recall": recall,
                    "first_precision": first_precision,
                    "first_recall": first_recall,
                    "separation": max(suspicion.separation.values(), default=0.0),
                }
            )
        separations: list[Row] = [
            {"source": source, "class": classes[label], "separation": value}
            for source, suspicion in found.items()
            for label, value in suspicion.separation.items()
        ]
        shown = [(name, s) for name, s in found.items() if name in sources and s.label is not None]
        return Outcome(
            metrics={
                f"poison_detection/{row['source']}/{name}": float(row[name])
                for row in rows
                for name in VALUES
            },
            tables={"detection": rows} | ({"separation": separations} if separations else {}),
            figures={f"suspected_by_{name}": _figure(subject, s) for name, s in shown[:1]},
        )


def _agreement(suspected: Tensor, is_corrupted: Tensor) -> tuple[float, float]:
    """Precision and recall, 0 where they are of nothing."""
    right = int((suspected & is_corrupted).sum())
    return right / max(int(suspected.sum()), 1), right / max(int(is_corrupted.sum()), 1)


def _figure(subject: Subject, suspicion: Suspicion) -> Figure:
    """The first images of the suspected class that are suspected, and those that are not."""
    train = subject.data.splits.train
    kinds = {
        "suspected": suspicion.suspected,
        "kept": (train.labels == suspicion.label) & ~suspicion.suspected,
    }
    images = [train.images[kind][:SHOWN] / 255 for kind in kinds.values()]
    labels = torch.cat([torch.full((len(i),), row) for row, i in enumerate(images)])
    title = shorten(subject.data.classes[suspicion.label or 0])
    return sheet({title: torch.cat(images)}, {title: labels}, list(kinds))
