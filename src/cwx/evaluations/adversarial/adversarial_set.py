"""What networks say of adversarial images made for them, or others (Dong et al., Table 1; D10)."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from cwx.data.adversarial_set import AdversarialSet
from cwx.data.datamodule import ImageData
from cwx.data.splits import ImageSet
from cwx.evaluations.outcome import Outcome, Row, Sources, each_network, over_networks
from cwx.explanations.drawing import sheet
from cwx.training.plan import Plan
from cwx.training.subject import Subject

SETTING = "evaluation.adversarial_set"
TOP = 5


class AdversarialSetAccuracy:
    """Accuracy on real test images and on the study's adversarial set, and how often that succeeds.

    The evaluation networks are those of `Subject.panel`. Each has these numbers, all in 0-1:

    - ``adversarial_set/<network>/clean_top1`` and ``…/clean_top5``: the share of all test images whose
      label is its first answer, or among its first five.
    - ``…/top1`` and ``…/top5``: the same of the adversarial images, by the labels of what they were
      made from. Of five classes or fewer there is no top 5.
    - ``…/success``: the share of the adversarial images that it takes for their targets.

    What several networks of one evaluation network do is averaged; but where one of them was attacked, these are
    its own, and those of the others, which were not, go by ``<network>-unseen``. The tables
    ``adversarial``, with standard deviations, and ``adversarial_networks`` say which were
    ``attacked``. ``adversarial_set/distance`` is the mean of ‖x − x*‖₂ on pixels of 0-255. The figure
    ``adversarial`` shows some of the images.

    Args:
        shown: how many images the figure shows, spread evenly.
        amplify: by how much it enlarges their differences.

    Raises:
        ValueError: either is out of range.
    """

    def __init__(self, *, shown: int, amplify: float) -> None:
        if shown < 1:
            raise ValueError(f"{SETTING}.shown is {shown}: give 1 or more")
        if amplify <= 0:
            raise ValueError(f"{SETTING}.amplify is {amplify}: give a number above 0")
        self.shown, self.amplify = shown, amplify

    def check(self, plan: Plan) -> None:
        plan.require_adversarial("adversarial_set")

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        found = subject.adversarial
        assert found is not None
        measured, distance = _measured(subject, found)
        rows = [_marked(row, found.members) for row in measured]
        values = [name for name in rows[0] if name not in ("network", "replicate", "attacked")]
        means = over_networks(rows, values=values)
        metrics = {
            f"adversarial_set/{_name(row, found.members)}/{value}": float(row[value])
            for row in means
            for value in values
        }
        metrics["adversarial_set/distance"] = distance
        return Outcome(
            metrics=metrics,
            tables={"adversarial": means, "adversarial_networks": rows},
            figures={"adversarial": self._figure(subject.data, found)},
        )

    def _figure(self, data: ImageData, found: AdversarialSet) -> Figure:
        """A row for each image: itself, what was made of it, and what was changed."""
        chosen = torch.arange(min(self.shown, len(found)))
        chosen = chosen * len(found) // len(chosen)
        real = data.splits.test.images[found.originals[chosen]].float() / 255
        made = found.at(chosen).float() / 255
        columns = {
            "real": real,
            "adversarial": made,
            f"difference x{self.amplify:g}": 0.5 + self.amplify * (made - real),
        }
        pairs = zip(found.labels[chosen].tolist(), found.targets[chosen].tolist(), strict=True)
        names = [f"{data.classes[label]} → {data.classes[target]}" for label, target in pairs]
        return sheet(columns, dict.fromkeys(columns, torch.arange(len(chosen))), names)


def _measured(subject: Subject, found: AdversarialSet) -> tuple[list[Row], float]:
    """Shares in 0-1, a row a network, and the mean distance: all in one pass over the images."""
    data, test = subject.data, subject.data.splits.test
    # Copies, for other evaluations use the evaluation networks where they are.
    panel = {
        evaluation_network: [deepcopy(network).to(subject.device) for network in networks]
        for evaluation_network, networks in subject.panel().items()
    }
    counts = {network: Counter[str]() for networks in panel.values() for network in networks}
    tops = (1, TOP) if len(data.classes) > TOP else (1,)
    for images, labels, _ in data.test_batches():
        for network, ranked in _ranked(counts, images.to(subject.device), tops[-1]):
            counts[network].update({f"clean_top{k}": _hits(ranked, labels, k) for k in tops})
    apart = 0.0
    for rows, made in found.batches():
        originals = test.images[found.originals[rows]]
        apart += (made.float() - originals.float()).flatten(1).norm(dim=1).sum().item()
        numbered = ImageSet(made, torch.arange(rows.start, rows.stop))
        for images, metrics, _ in data.in_order(numbered):
            labels, targets = found.labels[metrics], found.targets[metrics]
            for network, ranked in _ranked(counts, images.to(subject.device), tops[-1]):
                counts[network].update({f"top{k}": _hits(ranked, labels, k) for k in tops})
                counts[network].update(success=_hits(ranked, targets, 1))
    fractions = {
        network: {n: c / len(test if n.startswith("clean") else found) for n, c in counted.items()}
        for network, counted in counts.items()
    }
    return each_network(panel, lambda network: [fractions[network]]), apart / len(found)


@torch.no_grad()
def _ranked(
    networks: Iterable[nn.Module], images: Tensor, count: int
) -> Iterator[tuple[nn.Module, Tensor]]:
    """Each network, and its first `count` answers to each image ``[n, count]``."""
    for network in networks:
        yield network, network(images).topk(count, 1).indices.cpu()


def _hits(ranked: Tensor, labels: Tensor, count: int) -> int:
    """How often the label is among the first `count` answers."""
    return int((ranked[:, :count] == labels[:, None]).sum())


def _marked(row: Row, members: Sequence[str]) -> Row:
    """The row, and whether its network was attacked: of each member, the first was."""
    attacked = "yes" if row["network"] in members and row["replicate"] == 0 else "no"
    return {"network": row["network"], "replicate": row["replicate"], "attacked": attacked, **row}


def _name(row: Row, members: Sequence[str]) -> str:
    unseen = row["network"] in members and row["attacked"] == "no"
    return f"{row['network']}-unseen" if unseen else str(row["network"])
