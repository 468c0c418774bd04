"""Scores of images by which adversarial ones may be told from real ones, and their AUC."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from cwx.data.datamodule import ImageData
from cwx.evaluations.adversarial.adversarial_detection import class_moments, log_prob
from cwx.evaluations.adversarial.features import LayerChoice, feature_extractor
from cwx.evaluations.contributions.images import EvaluatedImages
from cwx.evaluations.contributions.measurement import Measures
from cwx.evaluations.contributions.reference import ABLATIONS
from cwx.evaluations.outcome import Row
from cwx.functional.auroc import auroc, auroc_given
from cwx.functional.class_gaussians import Covariance
from cwx.functional.contradiction import contradiction
from cwx.functional.representation_distance import Pooling
from cwx.functional.rng import stream
from cwx.training.ranks import Ranks

log = logging.getLogger(__name__)

# Random orders of the units' classes.
PERMUTATIONS = 10
# Parts of the images of about the same confidence.
STRATA = 10
_PURPOSE = 1262
# Values by kind of images, each [n].
ByKind = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score, higher for images that it takes for adversarial.

    Attributes:
        name: of the score.
        ablation: of the contributions that it is made of; empty if it needs none.
        versions: of the score, by kind of images; the AUC is a mean over them.
    """

    name: str
    ablation: str
    versions: Sequence[ByKind]


def evidence_scores(measures: Mapping[str, Measures], similarity: Tensor) -> list[Score]:
    """The contradiction of evidence with several weights, its control, and the confidence.

    - ``contradiction``: weights max(c, 0), the units that raise the predicted logit;
    - ``signed``: weights c; ``absolute``: weights |c|; ``difference``: weights PD, all units of
      influence as in the paper's Figure 10;
    - ``permuted``: as ``contradiction`` with the classes of the units in `PERMUTATIONS` random
      orders;
    - ``confidence``: 1 − the probability of the predicted class.

    Args:
        measures: by kind of images.
        similarity: s = C p of the units, ``[units, K]``.
    """
    generator = stream(_PURPOSE)
    orders = [torch.randperm(len(similarity), generator=generator) for _ in range(PERMUTATIONS)]
    scores = []
    for name in ABLATIONS:
        predicted = {kind: m.contributions[name][..., 0] for kind, m in measures.items()}
        weights: dict[str, ByKind] = {
            "contradiction": {kind: c.clamp(min=0) for kind, c in predicted.items()},
            "signed": predicted,
            "absolute": {kind: c.abs() for kind, c in predicted.items()},
            "difference": {kind: m.differences[name] for kind, m in measures.items()},
        }

        def versions(by_kind: ByKind, orders: Sequence[Tensor | slice]) -> list[ByKind]:
            return [
                {
                    kind: contradiction(w, similarity[order], measures[kind].predicted)
                    for kind, w in by_kind.items()
                }
                for order in orders
            ]

        for label, by_kind in weights.items():
            scores.append(
                Score(name=label, ablation=name, versions=versions(by_kind, [slice(None)]))
            )
        permuted = versions(weights["contradiction"], orders)
        scores.append(Score(name="permuted", ablation=name, versions=permuted))
    confidence = {kind: 1 - m.logits.softmax(1).amax(1) for kind, m in measures.items()}
    return [*scores, Score(name="confidence", ablation="", versions=[confidence])]


def gaussian_score(
    network: nn.Module,
    data: ImageData,
    images: Sequence[EvaluatedImages],
    choice: LayerChoice,
    pooling: Pooling,
    covariance: Covariance,
    ranks: Ranks,
) -> Score | None:
    """−log p(φ(x) | ŷ) as in `cwx.evaluations.adversarial.adversarial_detection`; collective.

    ``None`` if a class has no training images.
    """
    counts = torch.bincount(data.splits.train.labels.cpu(), minlength=len(data.classes))
    if not counts.all():
        missing = data.classes[int((counts == 0).nonzero()[0])]
        log.warning(
            "no Gaussian detector beside the contradiction of evidence: class %r has no training "
            "images",
            missing,
        )
        return None
    with feature_extractor(network, data, choice, pooling) as extract:
        gaussians = covariance(class_moments(extract, data, ranks))

        def of_block(of_kind: EvaluatedImages, positions: Tensor) -> Tensor:
            images = data.normalization.from_bytes(of_kind.read(positions))
            return -log_prob(gaussians, *extract(images))

        scores = {
            of_kind.kind: torch.cat(
                ranks.map(partial(of_block, of_kind), of_kind.blocks(data.batch_size))
            )
            for of_kind in images
        }
    return Score(name="gaussian", ablation="", versions=[scores])


def auc_rows(
    network: str, scores: Sequence[Score], measures: Mapping[str, Measures], labels: ByKind
) -> list[Row]:
    """The AUC of each score; ``misled`` is that of misclassified adversarial images.

    Args:
        network: its name.
        scores: to compare.
        measures, labels: by kind of images; the labels of adversarial images are those of their
            originals.

    Returns:
        ``auc`` on all adversarial against all test images; ``given_confidence`` on pairs of about
        the same probability of the predicted class, in `STRATA` parts; ``misled`` on those
        adversarial images that the network does not assign to their label, against the test images
        that it does. The last two are empty if there are no such pairs. The columns
        ``adversarial``, ``test``, ``misled_adversarial`` and ``correct_test`` count the images.
    """
    misled = measures["adversarial"].predicted != labels["adversarial"]
    correct = measures["test"].predicted == labels["test"]
    confidence = {kind: m.logits.softmax(1).amax(1) for kind, m in measures.items()}
    rows: list[Row] = []
    for score in scores:
        given = _mean([_auc_given(version, confidence) for version in score.versions])
        all_images = [auc(v["test"], v["adversarial"]) for v in score.versions]
        selected: float | str = ""
        if misled.any() and correct.any():
            selected = _mean(
                [auc(v["test"][correct], v["adversarial"][misled]) for v in score.versions]
            )
        rows.append(
            {
                "network": network,
                "score": score.name,
                "ablation": score.ablation,
                "auc": _mean(all_images),
                "given_confidence": "" if math.isnan(given) else given,
                "misled": selected,
                "adversarial": len(misled),
                "test": len(correct),
                "misled_adversarial": int(misled.sum()),
                "correct_test": int(correct.sum()),
            }
        )
    return rows


def auc(test: Tensor, adversarial: Tensor) -> float:
    """The AUC of a score of test images ``[t]`` and of adversarial images ``[n]``."""
    is_adversarial = torch.arange(len(test) + len(adversarial)) >= len(test)
    return auroc(torch.cat([test, adversarial]), is_adversarial)


def _auc_given(score: ByKind, confidence: ByKind) -> float:
    scores, others = (
        torch.cat([of_kind["test"], of_kind["adversarial"]]) for of_kind in (score, confidence)
    )
    is_adversarial = torch.arange(len(scores)) >= len(score["test"])
    return auroc_given(scores, is_adversarial, others, STRATA)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
