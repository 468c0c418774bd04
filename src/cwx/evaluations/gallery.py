"""The explanations side by side (CWX, Figure 1; C11)."""

from collections.abc import Sequence

from cwx.evaluations.outcome import BASELINES, Outcome, Sources, baselines
from cwx.explanations.drawing import sheet
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import of_kind
from cwx.training.subject import Subject


class Gallery:
    """One figure, a row a class: every method's images, projected, beside baselines.

    The raw range of each method, in normalised pixels, is given as ``gallery/range/<source>/min`` and
    ``max``: projection hides it.

    Args:
        titles: the heading of each source; its name if it is not there.
        baselines: which of them to show, by name, as far as the data have them.

    Raises:
        ValueError: there is no such baseline.
    """

    def __init__(self, *, titles: dict[str, str], baselines: Sequence[str]) -> None:
        if unknown := [name for name in baselines if name not in BASELINES]:
            raise ValueError(
                f"evaluation.gallery.baselines has {unknown[0]!r}: give some of "
                f"{', '.join(BASELINES)}, or none"
            )
        self.titles, self.baselines = titles, list(baselines)

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        normalization = subject.data.normalization
        images = of_kind(sources, Explanations)
        shown = {name: e.projected(normalization) for name, e in images.items()}
        beside = baselines(subject, sources)
        shown |= {name: beside[name] for name in self.baselines if name in beside}
        columns, labels = {}, {}
        for name, explanations in shown.items():
            title = self.titles.get(name, name)
            columns[title] = normalization.denormalize(explanations.images)
            labels[title] = explanations.labels
        metrics = {
            f"gallery/range/{name}/{end}": getattr(e.images, end)().item()
            for name, e in images.items()
            for end in ("min", "max")
        }
        return Outcome(
            metrics=metrics,
            figures={"explanations": sheet(columns, labels, subject.data.classes)},
        )
