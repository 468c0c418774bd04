"""An evaluation of my own: how strong the contrast of each method's images is."""

from cwx.evaluations.outcome import Outcome, Sources
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import of_kind
from cwx.training.subject import Subject


class Contrast:
    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        normalization = subject.data.normalization
        rows = [
            {
                "source": name,
                "class": subject.data.classes[label],
                "std": normalization.denormalize(found.of(label)).std().item(),
            }
            for name, found in of_kind(sources, Explanations).items()
            for label in range(len(subject.data.classes))
        ]
        metrics = {
            f"contrast/{name}": normalization.denormalize(found.images).std().item()
            for name, found in of_kind(sources, Explanations).items()
        }
        return Outcome(metrics=metrics, tables={"contrast": rows} if rows else {})
