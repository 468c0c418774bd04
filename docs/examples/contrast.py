"""My own evaluation: the contrast (standard deviation) of each method's images."""

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
                "std": normalization.denormalize(images.of_class(label)).std().item(),
            }
            for name, images in of_kind(sources, Explanations).items()
            for label in range(len(subject.data.classes))
        ]
        metrics = {
            f"contrast/{name}": normalization.denormalize(images.images).std().item()
            for name, images in of_kind(sources, Explanations).items()
        }
        return Outcome(metrics=metrics, tables={"contrast": rows} if rows else {})
