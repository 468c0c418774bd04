"""Detection of adversarial images as outliers among representations (Dong et al., §2.4)."""

from collections.abc import Iterator, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc, binary_roc

from cwx.data.datamodule import ImageData
from cwx.evaluations.adversarial.features import (
    ExtractFeatures,
    LayerChoice,
    adversarial_batches,
    feature_counts,
    feature_extractor,
    select_networks,
)
from cwx.evaluations.memory_limit import STATISTICS_BYTES
from cwx.evaluations.outcome import Outcome, Row, Sources, mean_over_networks
from cwx.functional.class_gaussians import Covariance, Gaussians, Moments, RunningMoments
from cwx.functional.representation_distance import Pooling
from cwx.functional.spacing import evenly_spaced_with_ends
from cwx.training.plan import Plan
from cwx.training.ranks import Ranks
from cwx.training.subject import Subject

SETTING = "evaluation.adversarial_detection"
# Points of each ROC curve in the table.
POINTS = 101


class AdversarialDetection:
    """Area under the ROC curve of a detector of adversarial images by their likelihood.

    A Gaussian is fitted to φ of each class's training images. The score of an image is
    −log p(φ(x) | ŷ) with ŷ the network's prediction. Positives are all adversarial images,
    negatives all test images. ``adversarial_detection/<network>/auc`` is a mean over the networks
    of one name: 0.5 is chance, 1 perfect detection. The table ``adversarial_detection`` adds
    standard deviations, ``adversarial_detection_networks`` has a row per network,
    ``adversarial_detection_roc`` points of each network's ROC curve; the figure
    ``adversarial_detection`` shows the curves (Figure 6).

    Args:
        networks, layer, before_nonlinearity: as in `cwx.evaluations.adversarial.representations`.
        pooling: from the layer's maps to vectors.
        covariance: the estimator of the Gaussians' covariance.
    """

    on_all_ranks = True

    def __init__(
        self,
        *,
        networks: Sequence[str] | None,
        layer: str | None,
        before_nonlinearity: bool,
        pooling: Pooling,
        covariance: Covariance,
    ) -> None:
        self.networks = networks
        self.layer = LayerChoice(
            layer=layer, before_nonlinearity=before_nonlinearity, setting=SETTING
        )
        self.pooling, self.covariance = pooling, covariance

    def check(self, plan: Plan) -> None:
        plan.require_adversarial("adversarial_detection")
        classes = plan.data.classes
        counts = torch.bincount(plan.data.splits.train.labels, minlength=len(classes))
        if not counts.all():
            missing = classes[int((counts == 0).nonzero()[0])]
            raise ValueError(
                f"{SETTING} fits a Gaussian to each class's training images, and class {missing!r} "
                "has none: choose data with training images of every class, or leave "
                "adversarial_detection out of evaluation=[…]"
            )
        check_memory(plan, self.networks, self.layer, self.pooling, self.covariance)

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        rows: list[Row] = []
        curves: list[Row] = []
        for name, networks in select_networks(subject, self.networks, SETTING).items():
            for replicate, network in enumerate(networks):
                head: Row = {"network": name, "replicate": replicate}
                auc, points = detection_auroc(*self._log_likelihoods(network, subject))
                rows.append({**head, "auc": auc})
                curves += [{**head, **point} for point in points]
        means = mean_over_networks(rows, values=("auc",))
        return Outcome(
            metrics={
                f"adversarial_detection/{row['network']}/auc": float(row["auc"]) for row in means
            },
            tables={
                "adversarial_detection": means,
                "adversarial_detection_networks": rows,
                "adversarial_detection_roc": curves,
            },
            figures={"adversarial_detection": _figure(curves, means)},
        )

    def _log_likelihoods(self, network: nn.Module, subject: Subject) -> tuple[Tensor, Tensor]:
        """log p(φ | ŷ) of test images ``[t]`` and of adversarial images ``[n]``, on the CPU."""
        data, adversarial, ranks = subject.data, subject.adversarial, subject.ranks
        assert adversarial is not None
        attacked = torch.empty(len(adversarial), dtype=torch.float64)
        with feature_extractor(network, data, self.layer, self.pooling) as extract:
            gaussians = self.covariance(class_moments(extract, data, ranks))

            def of_test_batches() -> list[Tensor]:
                batches = data.test_batches(first=ranks.index, step=ranks.count)
                return [log_prob(gaussians, *extract(batch.images)) for batch in batches]

            def of_adversarial_batches() -> list[tuple[slice, Tensor]]:
                batches = adversarial_batches(
                    data, adversarial, first=ranks.index, step=ranks.count
                )
                return [(rows, log_prob(gaussians, *extract(images))) for rows, images in batches]

            test = torch.cat(ranks.interleave(of_test_batches))
            for own in ranks.collect(of_adversarial_batches):
                for rows, values in own:
                    attacked[rows] = values
        return test, attacked


def check_memory(
    plan: Plan,
    networks: Sequence[str] | None,
    choice: LayerChoice,
    pooling: Pooling,
    covariance: Covariance,
) -> None:
    """Refuse Gaussians that take too much memory.

    Args:
        plan: the study.
        networks: see `check_networks`.
        choice: the layer of φ.
        pooling: from the layer's maps to vectors.
        covariance: the estimator of the Gaussians' covariance.

    Raises:
        ValueError: with the remedy.
    """
    classes, setting = len(plan.data.classes), choice.setting
    for features in feature_counts(plan, networks, choice, pooling):
        needed = 8 * covariance.size(classes, features)
        if needed > STATISTICS_BYTES:
            raise ValueError(
                f"{setting}.covariance would take {needed / 2**30:.0f} GiB for {classes} "
                f"classes of {features} features: choose covariance@{setting}."
                f"covariance=tied, or pooling@{setting}.pooling=mean"
            )


def class_moments(extract: ExtractFeatures, data: ImageData, ranks: Ranks) -> Iterator[Moments]:
    """Moments of φ of each class's training images, in the order of classes; collective.

    Each rank reads the images of other classes. At most a class per rank is held at a time, as the
    moments of all classes may take much memory.
    """
    train = data.splits.train

    def moments(label: int) -> Moments:
        running = RunningMoments()
        for batch in data.in_order(train.at(train.labels == label)):
            running.update(extract(batch.images)[0])
        return running.moments()

    labels = range(len(data.classes))
    for start in labels[:: ranks.count]:
        yield from ranks.map(moments, labels[start : start + ranks.count])


def log_prob(gaussians: Gaussians, features: Tensor, predicted: Tensor) -> Tensor:
    """log p(φ | ŷ) ``[b]`` on the CPU, of features ``[b, d]`` and predicted classes ``[b]``."""
    return gaussians.log_prob(features, predicted).cpu()


def detection_auroc(real: Tensor, adversarial: Tensor) -> tuple[float, list[Row]]:
    """AUC of the detector "low likelihood is adversarial", and points of its ROC curve in order.

    Args:
        real, adversarial: log-likelihoods ``[t]`` and ``[n]``.
    """
    negative_log_likelihood = -torch.cat([real, adversarial])
    # torchmetrics applies a sigmoid to scores outside 0-1, which makes extreme scores equal. Ranks
    # are in 0-1 once divided by the highest, and keep the order.
    _, ranks = negative_log_likelihood.unique(return_inverse=True)
    scores = ranks.double() / ranks.max().clamp(min=1)
    is_adversarial = torch.cat([torch.zeros(len(real)), torch.ones(len(adversarial))]).long()
    false_positive, true_positive, _ = binary_roc(scores, is_adversarial)
    indices = evenly_spaced_with_ends(len(false_positive), POINTS)
    points: list[Row] = [
        {"false_positive_rate": x, "true_positive_rate": y}
        for x, y in zip(
            false_positive[indices].tolist(), true_positive[indices].tolist(), strict=True
        )
    ]
    return float(binary_auroc(scores, is_adversarial)), points


def _figure(curves: Sequence[Row], means: Sequence[Row]) -> Figure:
    """ROC curves, a line per network, a colour per name (Figure 6)."""
    figure = Figure(figsize=(3.6, 3.4), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    for index, mean in enumerate(means):
        rows = [row for row in curves if row["network"] == mean["network"]]
        for replicate in dict.fromkeys(row["replicate"] for row in rows):
            points = [row for row in rows if row["replicate"] == replicate]
            axes.plot(
                [float(row["false_positive_rate"]) for row in points],
                [float(row["true_positive_rate"]) for row in points],
                color=f"C{index}",
                linewidth=1.2,
                label=None if replicate else f"{mean['network']}, AUC {float(mean['auc']):.3f}",
            )
    axes.set_xlabel("false positive rate (test images)")
    axes.set_ylabel("true positive rate (adversarial images)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure
