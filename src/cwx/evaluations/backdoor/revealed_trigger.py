"""Whether explanations reveal the trigger of a backdoor (CWX, §5; C12)."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cwx.evaluations.backdoor.attack_success import planted
from cwx.evaluations.outcome import Outcome, Row, Sources, baselines, raw_and_projected
from cwx.explanations.drawing import sheet
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import GREY, Patterns, of_kind
from cwx.functional.images import rescale
from cwx.functional.trigger_scores import (
    Revealed,
    is_local,
    set_apart,
    top_pixels,
    trigger_scores,
)
from cwx.training.plan import Plan
from cwx.training.subject import Subject

Scores = Mapping[str, float]


class RevealedTrigger:
    """How closely what sets one class's images apart from all others resembles the true trigger.

    ``revealed_trigger/<source>/target/<score>`` is of the backdoor's target class, and
    ``revealed_trigger/<source>/others/<score>`` the mean over the other classes, each set apart from all
    the rest in the same way: what a class without a backdoor reaches. The scores are those of
    `trigger_scores`, on unit pixels; sources are raw and projected, beside the baselines. A
    source that shows only one class, or not the target, lacks the numbers that need more. Of
    patterns (ISCP, §4.3) the mean mask over the canvases of a class is its map, and the mean of
    what the masks leave of the canvases, on grey, its pattern.
    """

    def check(self, plan: Plan) -> None:
        planted(plan.data, "revealed_trigger")

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        backdoor, shape = planted(subject.data, "revealed_trigger"), subject.data.image_shape
        mask, pattern = backdoor.trigger.mask(shape), backdoor.trigger.pattern(shape)
        revealed = {
            name: _of_images(_unit(subject, explanations))
            for name, explanations in (
                raw_and_projected(subject, sources) | baselines(subject, sources)
            ).items()
        }
        revealed |= {name: _of_patterns(p) for name, p in of_kind(sources, Patterns).items()}
        rows: list[Row] = [
            {"source": source, "class": kind, **scores}
            for source, by_class in revealed.items()
            for kind, scores in _scores(by_class, backdoor.target, mask, pattern).items()
        ]
        metrics = {
            f"revealed_trigger/{row['source']}/{row['class']}/{score}": float(value)
            for row in rows
            for score, value in row.items()
            if score not in ("source", "class")
        }
        of_target = {
            name: by_class[backdoor.target]
            for name, by_class in revealed.items()
            if backdoor.target in by_class
        }
        return Outcome(
            metrics=metrics,
            tables={"trigger": rows} if rows else {},
            figures={"trigger": _figure(of_target, mask, pattern)},
        )


def _unit(subject: Subject, explanations: Explanations) -> Explanations:
    images = subject.data.normalization.denormalize(explanations.images)
    return Explanations(images, explanations.labels)


def _of_images(explanations: Explanations) -> dict[int, Revealed]:
    """What sets each class apart; nothing if there is one alone."""
    labels = explanations.labels.unique().tolist()
    return {
        label: set_apart(
            explanations.images[explanations.labels == label],
            explanations.images[explanations.labels != label],
        )
        for label in (labels if len(labels) > 1 else [])
    }


def _of_patterns(patterns: Patterns) -> dict[int, Revealed]:
    mask = patterns.masks[:, None]
    left = mask * patterns.canvases + (1 - mask) * GREY
    return {
        label: Revealed(
            patterns.masks[patterns.labels == label].mean(0), left[patterns.labels == label].mean(0)
        )
        for label in patterns.labels.unique().tolist()
    }


def _scores(
    by_class: Mapping[int, Revealed], target: int, mask: Tensor, pattern: Tensor
) -> dict[str, Scores]:
    of_class = {
        label: trigger_scores(revealed, mask=mask, pattern=pattern)
        for label, revealed in by_class.items()
    }
    kinds = {
        "target": [s for label, s in of_class.items() if label == target],
        "others": [s for label, s in of_class.items() if label != target],
    }
    return {kind: _mean(found) for kind, found in kinds.items() if found}


def _mean(found: Sequence[Scores]) -> Scores:
    return {name: sum(scores[name] for scores in found) / len(found) for name in found[0]}


def _figure(shown: Mapping[str, Revealed], mask: Tensor, pattern: Tensor) -> Figure:
    """The true trigger in the first row, and below what each source reveals in the target class.

    Columns: the revealed map; if the trigger has a place, its highest pixels; the revealed
    pattern. Maps and patterns fill the range from black to white.
    """
    names, local = ["true trigger", *shown], is_local(mask)
    maps = [mask.double(), *(revealed.map.double() for revealed in shown.values())]
    masks = [mask.double(), *(top_pixels(values, int(mask.sum())) for values in maps[1:])]
    patterns = [pattern.double(), *(revealed.pattern.double() for revealed in shown.values())]
    columns = {"map": rescale(torch.stack(maps)[:, None])}
    if local:
        columns["mask"] = torch.stack(masks)[:, None]
    columns["pattern"] = rescale(torch.stack(patterns))
    return sheet(columns, dict.fromkeys(columns, torch.arange(len(names))), names)
