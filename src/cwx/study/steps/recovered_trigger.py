"""The class and the trigger that a cure removes."""

from collections.abc import Callable, Mapping
from functools import partial

from cwx.evaluations.outcome import Evaluation, NeedsBank, Sources
from cwx.explanations.patterns import Attach, Triggers
from cwx.functional.class_names import ClassName, class_index, describe_class
from cwx.training.plan import Plan
from cwx.training.subject import Subject

# The index of the class that the study's verdict suspects.
Suspected = Callable[[], int]


def suspected_class(
    evaluations: Mapping[str, Evaluation], subject: Subject, sources: Sources
) -> Suspected | None:
    """Measures the class that the verdict suspects; ``None`` if the study has no verdict."""
    for evaluation in evaluations.values():
        if isinstance(evaluation, NeedsBank):
            return partial(evaluation.suspected_class, subject, sources)
    return None


def check_source(plan: Plan, source: str, label: ClassName | None) -> None:
    """Refuse a source that leaves no triggers, and a class that does not exist."""
    if plan.leaves.get(source) is not Triggers:
        raise ValueError(
            f"cure.source is {source!r}, which is no method of this study that leaves "
            f"triggers: add {source} to method=[…], or choose cure=none"
        )
    if label is not None:
        class_index(label, plan.data.classes, "cure.label")


def recovered_trigger(
    subject: Subject,
    sources: Sources,
    source: str,
    chosen: ClassName | None,
    suspected: Suspected | None,
) -> tuple[Triggers, int, Attach]:
    """All triggers; the class whose trigger is removed; and the overlay of that trigger.

    Raises:
        ValueError: the class was not searched.
    """
    triggers = sources[source]
    assert isinstance(triggers, Triggers)
    if chosen is not None:
        label = class_index(chosen, subject.data.classes, "cure.label")
    elif suspected is not None:
        label = suspected()
    else:
        label = int(triggers.labels[triggers.sizes.argmin()])
    positions = (triggers.labels == label).nonzero()[:, 0].tolist()
    if not positions:
        raise ValueError(
            f"the trigger of class {describe_class(label, subject.data.classes)} is to be removed, "
            f"and method.{source} has not searched it: add the class to method.{source}.classes, "
            "or set cure.label to a class that is searched"
        )
    return triggers, label, triggers.attach(positions[0])
