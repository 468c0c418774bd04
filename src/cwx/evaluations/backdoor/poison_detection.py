"""Precision and recall of poisoned images found by explanations (CWX, §5)."""

from typing import Annotated

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cwx.evaluations.backdoor.attack_success import require_backdoor
from cwx.evaluations.backdoor.suspects import (
    Suspicion,
    check_suspicions,
    poisoned_images,
    suspicions,
)
from cwx.evaluations.outcome import Outcome, Row, Sources, baselines
from cwx.explanations.drawing import sheet
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import of_kind
from cwx.training.plan import Plan
from cwx.training.subject import Subject

VALUES = ("precision", "recall", "first_precision", "first_recall", "separation")
# Images per row of the figure.
IMAGES_PER_ROW = 10


class PoisonDetection:
    """Precision and recall of the training images that each source leads to suspect.

    ``poison_detection/<source>/precision`` is the fraction of suspected images that are poisoned
    (0 if none is suspected), ``…/recall`` the fraction of poisoned images that are suspected, and
    ``…/separation`` the separation of the best class's two groups; all in 0-1.
    ``…/first_precision`` and ``…/first_recall`` are of the pattern before its refinement by the
    groups: the contribution of the explanation alone. Sources are the methods and the
    `baselines`. The detection does not use the true trigger or target. Cover images, which carry
    a trigger and keep their label, count as not poisoned. The images of one class at most are
    suspected: of a backdoor with a target for each class, a part.

    The table ``poison_detection`` has a row per source, ``poison_detection_classes`` the
    separation of every class. The figure ``poison_detection_<source>`` shows suspected images of
    the first source and, of the same class, images that are not suspected.

    Args:
        separation: a class is suspected if its separation is higher, 0-1.
    """

    def __init__(self, *, separation: Annotated[float, ">= 0, <= 1"]) -> None:
        self.separation = separation

    def check(self, plan: Plan) -> None:
        require_backdoor(plan.data, "poison_detection")
        if plan.constructs:
            raise ValueError(
                "evaluation=[poison_detection] compares with the poisoned training images, and "
                "dataset_construction replaces them by others: leave one of the two out"
            )
        check_suspicions(plan.data, self.separation, "evaluation.poison_detection")

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        evaluated = {**of_kind(sources, Explanations), **baselines(subject, sources)}
        by_source = suspicions(subject.data, evaluated, separation=self.separation)
        classes, is_poisoned = subject.data.classes, poisoned_images(subject.data)
        assert is_poisoned is not None
        rows: list[Row] = []
        for source, suspicion in by_source.items():
            precision, recall = _precision_and_recall(suspicion.suspected, is_poisoned)
            first_precision, first_recall = _precision_and_recall(
                suspicion.initially_suspected, is_poisoned
            )
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
        class_rows: list[Row] = [
            {"source": source, "class": classes[label], "separation": value}
            for source, suspicion in by_source.items()
            for label, value in suspicion.separation.items()
        ]
        drawable = [
            (name, suspicion)
            for name, suspicion in by_source.items()
            if name in sources and suspicion.label is not None
        ]
        return Outcome(
            metrics={
                f"poison_detection/{row['source']}/{name}": float(row[name])
                for row in rows
                for name in VALUES
            },
            tables={"poison_detection": rows}
            | ({"poison_detection_classes": class_rows} if class_rows else {}),
            figures={
                f"poison_detection_{name}": _figure(subject, suspicion)
                for name, suspicion in drawable[:1]
            },
        )


def _precision_and_recall(suspected: Tensor, is_poisoned: Tensor) -> tuple[float, float]:
    """Precision and recall, 0 where the denominator is 0."""
    hits = int((suspected & is_poisoned).sum())
    return hits / max(int(suspected.sum()), 1), hits / max(int(is_poisoned.sum()), 1)


def _figure(subject: Subject, suspicion: Suspicion) -> Figure:
    """The first images of the suspected class that are suspected, and those that are not."""
    train = subject.data.splits.train
    masks = {
        "suspected": suspicion.suspected,
        "not suspected": (train.labels == suspicion.label) & ~suspicion.suspected,
    }
    images = [train.images[mask][:IMAGES_PER_ROW] / 255 for mask in masks.values()]
    labels = torch.cat([torch.full((len(i),), row) for row, i in enumerate(images)])
    title = subject.data.classes[suspicion.label or 0]
    return sheet({title: torch.cat(images)}, {title: labels}, list(masks))
