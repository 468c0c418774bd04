"""Whether explanations reveal the trigger of a backdoor (CWX, §5; C12)."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cwx.evaluations.backdoor import planted
from cwx.evaluations.outcome import Outcome, Row, Sources, baselines, raw_and_projected
from cwx.explanations import Explanations
from cwx.figures import sheet
from cwx.functional.images import rescale
from cwx.functional.triggers import (
    is_local,
    revealed_map,
    revealed_pattern,
    top_pixels,
    trigger_scores,
)
from cwx.plan import Plan
from cwx.subject import Subject

Scores = Mapping[str, float]


class RevealedTrigger:
    """How closely what sets one class's images apart from all others resembles the true trigger.

    ``trigger/<source>/target/<score>`` is of the backdoor's target class, and
    ``trigger/<source>/others/<score>`` the mean over the other classes, each set apart from all
    the rest in the same way: what a class without a backdoor reaches. The scores are those of
    `trigger_scores`, on unit pixels; sources are raw and projected, beside the baselines. A
    source that shows only one class, or not the target, lacks the numbers that need more.
    """

    def check(self, plan: Plan) -> None:
        planted(plan.data, "revealed_trigger")

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        backdoor, shape = planted(subject.data, "revealed_trigger"), subject.data.image_shape
        mask, pattern = backdoor.trigger.mask(shape), backdoor.trigger.pattern(shape)
        shown = {
            name: _unit(subject, explanations)
            for name, explanations in (
                raw_and_projected(subject, sources) | baselines(subject, sources)
            ).items()
        }
        rows: list[Row] = [
            {"source": source, "class": kind, **scores}
            for source, explanations in shown.items()
            for kind, scores in _scores(explanations, backdoor.target, mask, pattern).items()
        ]
        numbers = {
            f"trigger/{row['source']}/{row['class']}/{score}": float(value)
            for row in rows
            for score, value in row.items()
            if score not in ("source", "class")
        }
        figure = _figure(shown, backdoor.target, mask, pattern)
        return Outcome(
            numbers=numbers,
            tables={"trigger": rows} if rows else {},
            figures={"trigger": figure},
        )


def _unit(subject: Subject, explanations: Explanations) -> Explanations:
    images = subject.data.normalization.denormalize(explanations.images)
    return Explanations(images, explanations.labels)


def _apart(explanations: Explanations, label: int) -> tuple[Tensor, Tensor] | None:
    """The images of a class and those of all others, if there are both."""
    own = explanations.labels == label
    if not own.any() or own.all():
        return None
    return explanations.images[own], explanations.images[~own]


def _scores(
    explanations: Explanations, target: int, mask: Tensor, pattern: Tensor
) -> dict[str, Scores]:
    of_class = {
        label: trigger_scores(*parts, mask=mask, pattern=pattern)
        for label in explanations.labels.unique().tolist()
        if (parts := _apart(explanations, label))
    }
    kinds = {
        "target": [s for label, s in of_class.items() if label == target],
        "others": [s for label, s in of_class.items() if label != target],
    }
    return {kind: _mean(found) for kind, found in kinds.items() if found}


def _mean(found: Sequence[Scores]) -> Scores:
    return {name: sum(scores[name] for scores in found) / len(found) for name in found[0]}


def _figure(
    shown: Mapping[str, Explanations], target: int, mask: Tensor, pattern: Tensor
) -> Figure:
    """The true trigger in the first row, and below what each source reveals in the target class.

    Columns: the revealed map; if the trigger has a place, its highest pixels; the revealed
    pattern. Maps and patterns fill the range from black to white.
    """
    names, local = ["true trigger"], is_local(mask)
    maps, masks, patterns = [mask.double()], [mask.double()], [pattern.double()]
    for name, explanations in shown.items():
        if parts := _apart(explanations, target):
            names.append(name)
            maps.append(revealed_map(*parts))
            masks.append(top_pixels(maps[-1], int(mask.sum())))
            patterns.append(revealed_pattern(*parts))
    columns = {"map": rescale(torch.stack(maps)[:, None])}
    if local:
        columns["mask"] = torch.stack(masks)[:, None]
    columns["pattern"] = rescale(torch.stack(patterns))
    return sheet(columns, dict.fromkeys(columns, torch.arange(len(names))), names)
