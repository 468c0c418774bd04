"""Which classes a network confuses, on the test images."""

from typing import Annotated

from matplotlib.figure import Figure
from torch import Tensor, nn

from cwx.evaluations.outcome import Outcome, Row, Sources
from cwx.evaluations.predictions import divided_logits
from cwx.storage.metric_names import class_metric
from cwx.training.subject import Subject

# The confusion matrix of more classes cannot be read.
_MOST_CLASSES = 50


class Confusion:
    """The confusion matrix of the first expert, and the accuracy of each class.

    ``confusion/accuracy/class/<class>`` is the fraction of a class's test images that are
    classified correctly; ``confusion/images/fewest`` and ``…/without`` are the smallest number of
    test images of a class that has any, and the number of classes without. The table ``confusion``
    lists the most frequent confusions, if there are any, ``confusion_classes`` each class: images,
    accuracy (recall) and precision. The figure ``confusion`` is the matrix, of at most 50 classes.

    Args:
        most: rows of the table ``confusion``.
    """

    on_all_ranks = True

    def __init__(self, *, most: Annotated[int, ">= 1"]) -> None:
        self.most = most

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        data = subject.data
        network = subject.first_network("expert")
        matrix = _matrix(subject, network)
        counts, hits = matrix.sum(1), matrix.diagonal()
        present = counts > 0
        metrics = {
            class_metric("confusion/accuracy", data.classes[c]): (hits[c] / counts[c]).item()
            for c in present.nonzero()[:, 0].tolist()
        }
        metrics["confusion/images/fewest"] = float(counts[present].min())
        metrics["confusion/images/without"] = float((~present).sum())
        pairs = self._pairs(matrix, data.classes)
        return Outcome(
            metrics=metrics,
            tables=({"confusion": pairs} if pairs else {})
            | {"confusion_classes": _class_rows(matrix, data.classes)},
            figures={"confusion": _figure(matrix, data.classes)}
            if 0 < len(data.classes) <= _MOST_CLASSES
            else {},
        )

    def _pairs(self, matrix: Tensor, classes: tuple[str, ...]) -> list[Row]:
        wrong = matrix.clone()
        wrong.fill_diagonal_(0)
        order = wrong.flatten().argsort(descending=True, stable=True)[: self.most]
        pairs = [divmod(int(index), len(classes)) for index in order]
        return [
            {
                "class": classes[true],
                "classified as": classes[predicted],
                "images": int(wrong[true, predicted]),
                "fraction": (wrong[true, predicted] / matrix[true].sum()).item(),
            }
            for true, predicted in pairs
            if wrong[true, predicted] > 0
        ]


def _matrix(subject: Subject, network: nn.Module) -> Tensor:
    """Counts ``[true class, predicted class]`` in float64."""
    classes = len(subject.data.classes)
    predictions = divided_logits(subject, network).argmax(1)
    pairs = classes * subject.data.splits.test.labels + predictions
    return pairs.bincount(minlength=classes**2).view(classes, classes).double()


def _class_rows(matrix: Tensor, classes: tuple[str, ...]) -> list[Row]:
    counts, predicted, hits = matrix.sum(1), matrix.sum(0), matrix.diagonal()
    return [
        {
            "class": name,
            "images": int(counts[c]),
            "accuracy": (hits[c] / counts[c]).item() if counts[c] else "",
            "precision": (hits[c] / predicted[c]).item() if predicted[c] else "",
        }
        for c, name in enumerate(classes)
        if counts[c] or predicted[c]
    ]


def _figure(matrix: Tensor, classes: tuple[str, ...]) -> Figure:
    fractions = matrix / matrix.sum(1, keepdim=True).clamp_min(1)
    side = 1.6 + 0.3 * len(classes)
    figure = Figure(figsize=(side + 0.8, side), dpi=110, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(100 * fractions.numpy(), cmap="Blues", vmin=0, vmax=100)
    names = [name.replace("$", r"\$")[:24] for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("classified as")
    axes.set_ylabel("class")
    figure.colorbar(image, ax=axes, shrink=0.7, label="% of the class")
    return figure
