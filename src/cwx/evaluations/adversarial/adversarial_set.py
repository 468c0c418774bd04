"""Accuracy and attack success on the study's adversarial images (Dong et al., Table 1)."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from cwx.data.adversarial_set import AdversarialSet
from cwx.data.datamodule import ImageData
from cwx.data.splits import ImageSet
from cwx.evaluations.outcome import Outcome, Row, Sources, mean_over_networks, measure_networks
from cwx.explanations.drawing import sheet
from cwx.functional.spacing import evenly_spaced
from cwx.networks.finite_logits import finite_logits
from cwx.training.plan import Plan
from cwx.training.subject import Subject

SETTING = "evaluation.adversarial_set"
TOP = 5


class AdversarialSetAccuracy:
    """Accuracy on real test images and on the adversarial set, and success rate of the attack.

    The networks are those of `Subject.panel`. Each has these metrics, all in 0-1:

    - ``adversarial_set/<network>/clean_top1`` and ``…/clean_top5``: top-1 and top-5 accuracy on
      all test images. With five classes or fewer there is no top 5.
    - ``…/top1`` and ``…/top5``: the same on the adversarial images, with the labels of the
      original images.
    - ``…/success``: the fraction of adversarial images classified as their targets.

    Metrics are means over the networks of one name. If the first of them was attacked, the metrics
    are its own, and those of the others have the name ``<network>-unseen``. The tables
    ``adversarial_set``, with standard deviations, and ``adversarial_set_networks`` have the
    column ``attacked``. ``adversarial_set/distance`` is the mean of ‖x − x*‖₂ on pixels in 0-255.
    The figure ``adversarial_set`` shows some of the images.

    Args:
        shown: number of images in the figure, evenly spaced.
        amplify: factor of the differences in the figure.

    Raises:
        ValueError: either is out of range.
    """

    on_all_ranks = True

    def __init__(
        self, *, shown: Annotated[int, ">= 1"], amplify: Annotated[float, "> 0, <= 255"]
    ) -> None:
        if shown < 1:
            raise ValueError(f"{SETTING}.shown is {shown}: give 1 or more")
        if amplify <= 0:
            raise ValueError(f"{SETTING}.amplify is {amplify}: give a number above 0")
        self.shown, self.amplify = shown, amplify

    def check(self, plan: Plan) -> None:
        plan.require_adversarial("adversarial_set")

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        adversarial = subject.adversarial
        assert adversarial is not None
        network_rows, distance = _measure(subject, adversarial)
        rows = [_add_attacked(row, adversarial.attacked) for row in network_rows]
        values = [name for name in rows[0] if name not in ("network", "replicate", "attacked")]
        means = mean_over_networks(rows, values=values)
        metrics = {
            f"adversarial_set/{_metric_name(row, adversarial.attacked)}/{value}": float(row[value])
            for row in means
            for value in values
        }
        metrics["adversarial_set/distance"] = distance
        return Outcome(
            metrics=metrics,
            tables={"adversarial_set": means, "adversarial_set_networks": rows},
            figures={"adversarial_set": self._figure(subject.data, adversarial)},
        )

    def _figure(self, data: ImageData, adversarial: AdversarialSet) -> Figure:
        """A row per image: original, adversarial image, amplified difference."""
        indices = evenly_spaced(len(adversarial), self.shown)
        real = data.splits.test.images[adversarial.originals[indices]].float() / 255
        attacked = adversarial.at(indices).float() / 255
        columns = {
            "real": real,
            "adversarial": attacked,
            f"difference x{self.amplify:g}": 0.5 + self.amplify * (attacked - real),
        }
        labels, targets = adversarial.labels[indices], adversarial.targets[indices]
        names = [
            f"{data.classes[label]} → {data.classes[target]}"
            for label, target in zip(labels.tolist(), targets.tolist(), strict=True)
        ]
        return sheet(columns, dict.fromkeys(columns, torch.arange(len(indices))), names)


def _measure(subject: Subject, adversarial: AdversarialSet) -> tuple[list[Row], float]:
    """Fractions in 0-1, a row per network, and the mean distance, in one pass over the images."""
    panel = subject.panel()
    networks = [network for of_name in panel.values() for network in of_name]
    tops = (1, TOP) if len(subject.data.classes) > TOP else (1,)
    clean = subject.ranks.collect(lambda: _clean_hits(subject, networks, tops))
    attacked = subject.ranks.interleave(
        lambda: [*_attacked_hits(subject, adversarial, networks, tops)]
    )
    totals, distance = [Counter[str]() for _ in networks], 0.0
    for hits in (*clean, *(hits for hits, _ in attacked)):
        for total, of_network in zip(totals, hits, strict=True):
            total.update(of_network)
    # In the order of the batches: another sum may round differently.
    for _, of_batch in attacked:
        distance += of_batch
    fractions = {
        network: {
            name: count / len(subject.data.splits.test if "clean" in name else adversarial)
            for name, count in total.items()
        }
        for network, total in zip(networks, totals, strict=True)
    }
    rows_by_network = measure_networks(panel, lambda network: [fractions[network]])
    return rows_by_network, distance / len(adversarial)


def _clean_hits(
    subject: Subject, networks: Sequence[nn.Module], tops: Sequence[int]
) -> list[Counter[str]]:
    """The hits of each network among this rank's batches of test images."""
    counts, ranks = [Counter[str]() for _ in networks], subject.ranks
    for images, labels, _ in subject.data.test_batches(first=ranks.index, step=ranks.count):
        rankings = _top_classes(networks, images.to(subject.device), tops[-1])
        for of_network, ranking in zip(counts, rankings, strict=True):
            of_network.update({f"clean_top{k}": _hits(ranking, labels, k) for k in tops})
    return counts


def _attacked_hits(
    subject: Subject,
    adversarial: AdversarialSet,
    networks: Sequence[nn.Module],
    tops: Sequence[int],
) -> Iterator[tuple[list[Counter[str]], float]]:
    """The hits of each network in each of this rank's batches, and the sum of its distances."""
    test, ranks = subject.data.splits.test, subject.ranks
    for rows, attacked in adversarial.batches(first=ranks.index, step=ranks.count):
        counts = [Counter[str]() for _ in networks]
        originals = test.images[adversarial.originals[rows]]
        distance = (attacked.float() - originals.float()).flatten(1).norm(dim=1).sum().item()
        # The label of each image is its index in the set.
        indexed = ImageSet(attacked, torch.arange(rows.start, rows.stop))
        for images, indices, _ in subject.data.in_order(indexed):
            labels, targets = adversarial.labels[indices], adversarial.targets[indices]
            rankings = _top_classes(networks, images.to(subject.device), tops[-1])
            for of_network, ranking in zip(counts, rankings, strict=True):
                of_network.update({f"top{k}": _hits(ranking, labels, k) for k in tops})
                of_network.update(success=_hits(ranking, targets, 1))
        yield counts, distance


@torch.no_grad()
def _top_classes(networks: Iterable[nn.Module], images: Tensor, count: int) -> Iterator[Tensor]:
    """Of each network, the `count` classes of highest logit of each image ``[n, count]``."""
    for network in networks:
        yield finite_logits(network(images)).topk(count, 1).indices.cpu()


def _hits(ranking: Tensor, labels: Tensor, count: int) -> int:
    """Number of images whose label is among the first `count` classes of the ranking."""
    return int((ranking[:, :count] == labels[:, None]).sum())


def _add_attacked(row: Row, names: Sequence[str]) -> Row:
    """The row with the column ``attacked``: of each of these names the first network was."""
    attacked = "yes" if row["network"] in names and row["replicate"] == 0 else "no"
    return {"network": row["network"], "replicate": row["replicate"], "attacked": attacked, **row}


def _metric_name(row: Row, names: Sequence[str]) -> str:
    unseen = row["network"] in names and row["attacked"] == "no"
    return f"{row['network']}-unseen" if unseen else str(row["network"])
