"""The explanations side by side (CWX, Figure 1; C11)."""

from cwx.evaluations.outcome import Outcome, Sources, real_beside
from cwx.figures import sheet
from cwx.subject import Subject


class Gallery:
    """One figure, a row a class: every method's images, projected, beside real test images.

    The raw range of each method, in normalised pixels, is given as ``range/<source>/min`` and
    ``max``: projection hides it.

    Args:
        titles: the heading of each source; its name if it is not there.
    """

    def __init__(self, *, titles: dict[str, str]) -> None:
        self.titles = titles

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        normalization = subject.data.normalization
        shown = {name: e.projected(normalization) for name, e in sources.items()}
        shown["real"] = real_beside(subject, sources)
        columns, labels = {}, {}
        for name, explanations in shown.items():
            title = self.titles.get(name, name)
            columns[title] = normalization.denormalize(explanations.images)
            labels[title] = explanations.labels
        numbers = {
            f"range/{name}/{end}": getattr(e.images, end)().item()
            for name, e in sources.items()
            for end in ("min", "max")
        }
        return Outcome(
            numbers=numbers,
            figures={"explanations": sheet(columns, labels, subject.data.classes)},
        )
