"""Metrics of the subject of a study: of its images, and of how its networks came about."""

from cwx.evaluations.outcome import Outcome
from cwx.training.subject import Subject


def subject_outcomes(subject: Subject) -> dict[str, Outcome]:
    """The metrics of the subject, by the step that they describe."""
    metrics = {"corruption": subject.data.changes.metrics()}
    if subject.continued_epochs is not None:
        metrics["continued_training"] = {
            "continued_training/epochs": float(subject.continued_epochs)
        }
    if subject.dataset_construction:
        metrics["dataset_construction"] = dict(subject.dataset_construction)
    if subject.adversarial is not None:
        metrics["adversary"] = dict(subject.adversarial.metrics)
    if subject.left_out is not None:
        fraction = subject.left_out.double().mean().item()
        metrics["purification"] = {"purification/left_out": fraction}
    return {name: Outcome(metrics=values) for name, values in metrics.items()}
