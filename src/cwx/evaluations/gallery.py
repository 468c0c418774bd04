"""A figure of all explanations, a row per class (CWX, Figure 1)."""

from collections.abc import Sequence

from cwx.evaluations.outcome import BASELINES, Outcome, Sources, baselines
from cwx.explanations.drawing import sheet
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import of_kind
from cwx.training.subject import Subject


class Gallery:
    """The figure ``gallery``: images of every method and of baselines, a row per class.

    Images of methods are as displayed (`Explanations.for_display`): the contrast is stretched,
    the same for all images of a class. ``gallery/range/<source>/min`` and ``…/max`` are the raw
    range of each method's images in normalised pixels, which the stretch hides.

    Args:
        titles: heading by source; the default is the source's name.
        baselines: names of the baselines in the figure; those that the data lack are left out.

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
        raw = of_kind(sources, Explanations)
        displayed = {name: images.for_display(normalization) for name, images in raw.items()}
        available = baselines(subject, sources)
        displayed |= {name: available[name] for name in self.baselines if name in available}
        columns, labels = {}, {}
        for name, explanations in displayed.items():
            title = self.titles.get(name, name)
            columns[title] = normalization.denormalize(explanations.images)
            labels[title] = explanations.labels
        metrics = {
            f"gallery/range/{name}/{end}": getattr(explanations.images, end)().item()
            for name, explanations in raw.items()
            for end in ("min", "max")
        }
        return Outcome(
            metrics=metrics,
            figures={"gallery": sheet(columns, labels, subject.data.classes)},
        )
