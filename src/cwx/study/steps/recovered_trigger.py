"""The class and the triggers that a cure removes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from cwx.evaluations.outcome import Evaluation, NeedsBank, Sources
from cwx.explanations.patterns import Attach, Perturbations, Triggers
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
    _check_explains(plan, source, "cure.source")
    plan.require_images_outside("cure.source", source)
    if label is not None:
        class_index(label, plan.data.classes, "cure.label")


def _check_explains(plan: Plan, source: str, setting: str) -> None:
    explains = plan.explains.get(source, "expert")
    if explains != "expert":
        raise ValueError(
            f"{setting} names {source!r}, which explains {explains!r}: a cure changes the first "
            f"expert; set method.{source}.explains to expert"
        )


def check_sources(plan: Plan, sources: Sequence[str], label: ClassName | None) -> None:
    """Refuse sources that leave no triggers of the expert, and a class that does not exist."""
    for source in sources:
        form = plan.leaves.get(source)
        if form not in (Triggers, Perturbations):
            raise ValueError(
                f"cure.sources names {source!r}, which is no method of this study that leaves "
                f"triggers or perturbations: add {source} to method=[…], leave it out of "
                "cure.sources, or choose cure=none"
            )
        _check_explains(plan, source, "cure.sources")
        plan.require_images_outside("cure.sources", source)
    if label is not None:
        class_index(label, plan.data.classes, "cure.label")
    elif not any(plan.leaves.get(source) is Triggers for source in sources):
        raise ValueError(
            "cure.label is null, and cure.sources has no method that leaves triggers, whose sizes "
            "tell the class: name the class, or add trigger_inversion to cure.sources"
        )


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
        raise ValueError(_not_searched(label, source, subject))
    return triggers, label, triggers.attach(positions[0])


def recovered_overlays(
    subject: Subject,
    sources: Sources,
    names: Sequence[str],
    chosen: ClassName | None,
    suspected: Suspected | None,
) -> tuple[int, list[Attach], Tensor]:
    """The class; all triggers and perturbations of it; and a mask ``[t]`` of the images searched.

    Args:
        names: of the methods, in the order of the result.
        chosen: the class; ``None`` for that of the first method that leaves triggers
            (`recovered_trigger`).

    Raises:
        ValueError: a method has not searched the class.
    """
    outputs = {name: sources[name] for name in names}
    if chosen is None:
        first = next(name for name, output in outputs.items() if isinstance(output, Triggers))
        _, label, _ = recovered_trigger(subject, sources, first, chosen, suspected)
    else:
        label = class_index(chosen, subject.data.classes, "cure.label")
    overlays: list[Attach] = []
    used = torch.zeros(len(subject.data.splits.test), dtype=torch.bool)
    for name, output in outputs.items():
        assert isinstance(output, Triggers | Perturbations)
        positions = (output.labels == label).nonzero()[:, 0].tolist()
        if not positions:
            raise ValueError(_not_searched(label, name, subject))
        overlays += [output.attach(position) for position in positions]
        used |= output.searched
    return label, overlays, used


def _not_searched(label: int, name: str, subject: Subject) -> str:
    return (
        f"the trigger of class {describe_class(label, subject.data.classes)} is to be removed, "
        f"and method.{name} has not searched it: add the class to method.{name}.classes, "
        "or set cure.label to a class that is searched"
    )
