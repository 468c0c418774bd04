"""Whether adversarial images are outliers among representations (Dong et al., §2.4; D7)."""

from collections.abc import Iterator, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc, binary_roc

from cwx.data.datamodule import ImageData
from cwx.evaluations.adversarial.features import (
    Represent,
    adversarial_batches,
    check_networks,
    compared,
    representing,
)
from cwx.evaluations.outcome import Outcome, Row, Sources, over_networks
from cwx.functional.class_gaussians import Covariance, Gaussians, Moments, RunningMoments
from cwx.functional.representation_distance import Pooling
from cwx.training.plan import Plan
from cwx.training.subject import Subject

PLACE = "evaluation.adversarial_detection"
# Of the curve, in the table.
POINTS = 101
# What fits into the memory of most machines.
MOST_BYTES = 16 * 2**30


class AdversarialDetection:
    """The area under the ROC curve by which adversarial images are told from test images.

    A Gaussian is fitted to φ of each class's training images, as they are trained on, and an image
    is the more suspected the lower log p(φ(x) | ŷ), with ŷ what the network takes it for. Positive
    are all adversarial images, negative all test images. ``adversarial_detection/<kind>/auc`` is a
    mean over the networks of a kind: 0.5 where they are not told apart, 1 where all are. The table
    ``adversarial_detection`` adds deviations, ``adversarial_detection_roc`` has points of each
    network's curve, and the figure ``adversarial_detection`` shows them (Figure 6).

    Args:
        networks, layer: as of `cwx.evaluations.adversarial.representations`.
        pooling: from the layer's maps to vectors.
        covariance: what is assumed of the Gaussians.
    """

    def __init__(
        self,
        *,
        networks: Sequence[str] | None,
        layer: str | None,
        pooling: Pooling,
        covariance: Covariance,
    ) -> None:
        self.networks, self.layer = networks, layer
        self.pooling, self.covariance = pooling, covariance

    def check(self, plan: Plan) -> None:
        plan.require_adversarial("adversarial_detection")
        classes = plan.data.classes
        counts = torch.bincount(plan.data.splits.train.labels, minlength=len(classes))
        if not counts.all():
            missing = classes[int((counts == 0).nonzero()[0])]
            raise ValueError(
                f"{PLACE} fits a Gaussian to each class's training images, and class {missing!r} "
                "has none: choose data with training images of every class, or leave "
                "adversarial_detection out of evaluation=[…]"
            )
        for network in check_networks(plan, self.networks, self.layer, PLACE):
            asked = (plan.data, self.layer, self.pooling, PLACE)
            with representing(network.eval(), *asked) as represent:
                features, _ = represent(torch.zeros(1, *plan.data.image_shape))
            needed = 8 * self.covariance.size(len(classes), features.shape[1])
            if needed > MOST_BYTES:
                raise ValueError(
                    f"{PLACE}.covariance would take {needed / 2**30:.0f} GiB for {len(classes)} "
                    f"classes of {features.shape[1]} features: choose covariance@{PLACE}."
                    f"covariance=tied, or pooling@{PLACE}.pooling=mean"
                )

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        rows: list[Row] = []
        curves: list[Row] = []
        for kind, networks in compared(subject, self.networks, PLACE).items():
            for place, network in enumerate(networks):
                head: Row = {"network": kind, "replicate": place}
                auc, points = detection_auroc(*self._likelihoods(network, subject))
                rows.append({**head, "auc": auc})
                curves += [{**head, **point} for point in points]
        means = over_networks(rows, values=("auc",))
        return Outcome(
            metrics={
                f"adversarial_detection/{r['evaluation network']}/auc": float(r["auc"])
                for r in means
            },
            tables={
                "adversarial_detection": means,
                "adversarial_detection_networks": rows,
                "adversarial_detection_roc": curves,
            },
            figures={"adversarial_detection": _figure(curves, means)},
        )

    def _likelihoods(self, network: nn.Module, subject: Subject) -> tuple[Tensor, Tensor]:
        """log p(φ | ŷ) of test images ``[t]`` and of adversarial ones ``[n]``, on the CPU."""
        data, adversarial = subject.data, subject.adversarial
        assert adversarial is not None
        with representing(network, data, self.layer, self.pooling, PLACE) as represent:
            gaussians = self.covariance(_moments(represent, data))
            test = (batch.images for batch in data.test_batches())
            attacked = (images for _, images in adversarial_batches(data, adversarial))
            real, found = (
                torch.cat([_log_prob(gaussians, *represent(images)) for images in batches])
                for batches in (test, attacked)
            )
        return real, found


def _moments(represent: Represent, data: ImageData) -> Iterator[Moments]:
    """Of each class's training images, one class after the other."""
    train = data.splits.train
    for label in range(len(data.classes)):
        running = RunningMoments()
        for batch in data.in_order(train.at(train.labels == label)):
            running.update(represent(batch.images)[0])
        yield running.moments()


def _log_prob(gaussians: Gaussians, features: Tensor, predicted: Tensor) -> Tensor:
    return gaussians.log_prob(features, predicted).cpu()


def detection_auroc(real: Tensor, adversarial: Tensor) -> tuple[float, list[Row]]:
    """The AUC by which lower likelihoods are adversarial, and points of the ROC curve in order.

    Args:
        real, adversarial: log-likelihoods ``[t]`` and ``[n]``.
    """
    suspicion = -torch.cat([real, adversarial])
    # torchmetrics takes what is not in 0-1 for logits, whose sigmoid makes the extremes equal: the
    # ranks keep them apart.
    _, ranks = suspicion.unique(return_inverse=True)
    scores = ranks.double() / ranks.max().clamp(min=1)
    positive = torch.cat([torch.zeros(len(real)), torch.ones(len(adversarial))]).long()
    false, true, _ = binary_roc(scores, positive)
    kept = torch.linspace(0, len(false) - 1, min(POINTS, len(false))).round().long()
    points: list[Row] = [
        {"false_positive_rate": x, "true_positive_rate": y}
        for x, y in zip(false[kept].tolist(), true[kept].tolist(), strict=True)
    ]
    return float(binary_auroc(scores, positive)), points


def _figure(curves: Sequence[Row], means: Sequence[Row]) -> Figure:
    """A line a network, a colour a kind (Figure 6)."""
    figure = Figure(figsize=(3.6, 3.4), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    for number, mean in enumerate(means):
        own = [row for row in curves if row["network"] == mean["network"]]
        for place in dict.fromkeys(row["replicate"] for row in own):
            points = [row for row in own if row["replicate"] == place]
            axes.plot(
                [float(row["false_positive_rate"]) for row in points],
                [float(row["true_positive_rate"]) for row in points],
                color=f"C{number}",
                linewidth=1.2,
                label=None
                if place
                else f"{mean['evaluation network']}, AUC {float(mean['auc']):.3f}",
            )
    axes.set_xlabel("test images taken for adversarial")
    axes.set_ylabel("adversarial images found")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure
