"""Similarity of the trigger revealed by explanations and the true one (CWX, §5)."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cwx.data.datamodule import ImageData
from cwx.evaluations.backdoor.attack_success import require_backdoor
from cwx.evaluations.backdoor.overlays import overlay_success
from cwx.evaluations.backdoor.poisoned_examples import poisoned_examples
from cwx.evaluations.outcome import Outcome, Row, Sources, baselines, raw_and_projected
from cwx.explanations.drawing import sheet
from cwx.explanations.images import DISPLAY_TAIL, Explanations
from cwx.explanations.patterns import GREY, Patterns, Perturbations, Triggers, of_kind
from cwx.functional.backdoor import PatternTrigger
from cwx.functional.images import stretch
from cwx.functional.trigger_scores import (
    TriggerEstimate,
    estimate_trigger,
    is_local,
    top_pixels,
    trigger_scores,
)
from cwx.training.plan import Plan
from cwx.training.subject import Subject

Scores = Mapping[str, float]


class RevealedTrigger:
    """Scores of the trigger that each source reveals: one class's images against all others.

    ``revealed_trigger/<source>/target/<score>`` is of the backdoor's target class.
    ``revealed_trigger/<source>/others/<score>`` is the control, the mean over the other classes,
    each against all the rest. The scores are those of `trigger_scores`, on unit pixels, and
    ``success``, that of the revealed trigger on test images that no search used, the same for all
    sources (`overlay_success`); missing if there are none. Sources
    are raw and projected images and the `baselines`. A source that shows a single class, or not
    the target, lacks the metrics that need more. For patterns (ISCP, §4.3) the map of a class is
    the mean mask over its canvases, and its pattern the mean of the masked canvases on grey; for
    triggers they are the mask and the trigger on grey; for universal perturbations, of the largest
    radius, the absolute change and the change.
    A backdoor with a target for each class, and a trigger without a pattern of its own
    (`PatternTrigger`), are refused.

    With `seconds`, ``revealed_trigger/<method>/seconds`` is the time that the method took for all
    its classes, over all starts of the run; baselines have none.

    The table ``revealed_trigger`` has a row per source and ``target`` or ``others``. The figure
    ``revealed_trigger`` shows the true trigger and the revealed ones; ``poisoned_examples`` shows
    poisoned training images beside them (CWX, Figure 2).

    Args:
        images: test images that measure ``success``, at most; null leaves it out.
        seconds: whether to report the time of each method.
    """

    def __init__(self, *, images: Annotated[int, ">= 1"] | None, seconds: bool) -> None:
        self.images, self.seconds = images, seconds

    def check(self, plan: Plan) -> None:
        _true_trigger(plan.data)

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        target, mask, pattern = _true_trigger(subject.data)
        unit = {
            name: _unit(subject, explanations)
            for name, explanations in (
                raw_and_projected(subject, sources) | baselines(subject, sources)
            ).items()
        }
        revealed = {name: _reveal_from_images(shown) for name, shown in unit.items()}
        revealed |= {
            name: _reveal_from_patterns(patterns)
            for name, patterns in of_kind(sources, Patterns).items()
        }
        revealed |= {
            name: _reveal_from_triggers(triggers)
            for name, triggers in of_kind(sources, Triggers).items()
        }
        revealed |= {
            name: _reveal_from_perturbations(perturbations)
            for name, perturbations in of_kind(sources, Perturbations).items()
        }
        success = (
            {}
            if self.images is None
            else overlay_success(subject, sources, unit, revealed, mask, count=self.images)
        )
        rows: list[Row] = [
            {"source": source, "class": kind, **scores}
            for source, by_class in revealed.items()
            for kind, scores in _scores(
                by_class, success.get(source, {}), target, mask, pattern
            ).items()
        ]
        metrics = {
            f"revealed_trigger/{row['source']}/{row['class']}/{score}": float(value)
            for row in rows
            for score, value in row.items()
            if score not in ("source", "class")
        }
        if self.seconds:
            of_methods = {
                name: subject.method_seconds[name]
                for name in sources
                if name in subject.method_seconds
            }
            rows = [{**row, **_seconds(row, of_methods)} for row in rows]
            metrics |= {
                f"revealed_trigger/{name}/seconds": time for name, time in of_methods.items()
            }
        of_target = {
            name: by_class[target] for name, by_class in revealed.items() if target in by_class
        }
        shown = {name: of_target[name].pattern for name in (*sources, "mean") if name in of_target}
        return Outcome(
            metrics=metrics,
            tables={"revealed_trigger": _filled(rows)} if rows else {},
            figures={
                "revealed_trigger": _figure(of_target, mask, pattern),
                "poisoned_examples": poisoned_examples(
                    subject.data, target, pattern, sources, shown
                ),
            },
        )


def _seconds(row: Row, of_methods: Mapping[str, float]) -> Row:
    """The time of the row's method, of raw images alone, so that no method is counted twice."""
    source = str(row["source"])
    known = source in of_methods and row["class"] == "target"
    return {"seconds": of_methods[source]} if known else {}


def _filled(rows: Sequence[Row]) -> list[Row]:
    """The rows with all columns; those that a row lacks are empty."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name, "") for name in columns} for row in rows]


def _true_trigger(data: ImageData) -> tuple[int, Tensor, Tensor]:
    """The target of the backdoor, and the mask and the pattern of its trigger.

    Raises:
        ValueError: there is no backdoor, or it has no single target, or no pattern of its own.
    """
    backdoor = require_backdoor(data, "revealed_trigger")
    remedy = "leave revealed_trigger out of evaluation=[…]"
    if backdoor.target is None:
        raise ValueError(
            "revealed_trigger compares the target class with all others, and this backdoor has a "
            f"target for each class: {remedy}"
        )
    if not isinstance(backdoor.trigger, PatternTrigger):
        raise ValueError(
            "revealed_trigger compares the pixels of the true trigger, and the change by "
            f"{type(backdoor.trigger).__name__} depends on the image, so that it has no method "
            f"`pattern`: {remedy}"
        )
    shape = data.image_shape
    return backdoor.target, backdoor.trigger.mask(shape), backdoor.trigger.pattern(shape)


def _unit(subject: Subject, explanations: Explanations) -> Explanations:
    images = subject.data.normalization.denormalize(explanations.images)
    return Explanations(images, explanations.labels)


def _reveal_from_images(explanations: Explanations) -> dict[int, TriggerEstimate]:
    """The revealed trigger of each class; empty if there is a single class."""
    labels = explanations.labels.unique().tolist()
    return {
        label: estimate_trigger(
            explanations.images[explanations.labels == label],
            explanations.images[explanations.labels != label],
        )
        for label in (labels if len(labels) > 1 else [])
    }


def _reveal_from_patterns(patterns: Patterns) -> dict[int, TriggerEstimate]:
    mask = patterns.masks[:, None]
    on_grey = mask * patterns.canvases + (1 - mask) * GREY
    return {
        label: TriggerEstimate(
            patterns.masks[patterns.labels == label].mean(0),
            on_grey[patterns.labels == label].mean(0, keepdim=True),
        )
        for label in patterns.labels.unique().tolist()
    }


def _reveal_from_triggers(triggers: Triggers) -> dict[int, TriggerEstimate]:
    on_grey = triggers.on_grey()
    return {
        label: TriggerEstimate(triggers.masks[index], on_grey[index][None])
        for index, label in enumerate(triggers.labels.tolist())
    }


def _reveal_from_perturbations(perturbations: Perturbations) -> dict[int, TriggerEstimate]:
    largest = (perturbations.epsilons == perturbations.epsilons.max()).nonzero()[:, 0].tolist()
    return {
        int(perturbations.labels[index]): TriggerEstimate(
            perturbations.deltas[index].abs().mean(0), perturbations.deltas[index][None]
        )
        for index in largest
    }


def _scores(
    by_class: Mapping[int, TriggerEstimate],
    success: Mapping[int, float],
    target: int,
    mask: Tensor,
    pattern: Tensor,
) -> dict[str, Scores]:
    """Scores of the ``target`` class and means over the ``others``, if there are any."""
    of_class = {
        label: trigger_scores(revealed, mask=mask, pattern=pattern)
        | ({"success": success[label]} if label in success else {})
        for label, revealed in by_class.items()
    }
    groups = {
        "target": [scores for label, scores in of_class.items() if label == target],
        "others": [scores for label, scores in of_class.items() if label != target],
    }
    return {kind: _mean(group) for kind, group in groups.items() if group}


def _mean(group: Sequence[Scores]) -> Scores:
    """The mean of each score over the classes that have it."""
    values = {name: [scores[name] for scores in group if name in scores] for name in _names(group)}
    return {name: sum(of_name) / len(of_name) for name, of_name in values.items()}


def _names(group: Sequence[Scores]) -> list[str]:
    return list(dict.fromkeys(name for scores in group for name in scores))


def _figure(of_target: Mapping[str, TriggerEstimate], mask: Tensor, pattern: Tensor) -> Figure:
    """The true trigger in the first row; below, the trigger of the target class by source.

    Columns: the revealed map; its highest pixels, if the trigger is local; the revealed pattern.
    The contrast of each map and each pattern is stretched from black to white.
    """
    names, local = ["true trigger", *of_target], is_local(mask)
    maps = [mask.double(), *(revealed.map.double() for revealed in of_target.values())]
    masks = [mask.double(), *(top_pixels(values, int(mask.sum())) for values in maps[1:])]
    patterns = [pattern.double(), *(revealed.pattern.double() for revealed in of_target.values())]
    columns = {"map": _stretched([values[None] for values in maps])}
    if local:
        columns["mask"] = torch.stack(masks)[:, None]
    columns["pattern"] = _stretched(patterns)
    return sheet(columns, dict.fromkeys(columns, torch.arange(len(names))), names)


def _stretched(images: Sequence[Tensor]) -> Tensor:
    """Each image ``[C, H, W]`` with its own range as black and white."""
    return torch.cat([stretch(image[None], tail=DISPLAY_TAIL) for image in images])
