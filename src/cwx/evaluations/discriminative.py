"""Whether networks recognise the explanations (CWX, Table 1; C10)."""

import torch
from torch import Tensor, nn

from cwx.evaluations.outcome import (
    Outcome,
    Row,
    Sources,
    baselines,
    each_network,
    over_networks,
    raw_and_projected,
)
from cwx.explanations.images import Explanations
from cwx.training.subject import Subject


class Discriminative:
    """Accuracy, confidence and margin of trained networks on the explanations.

    The evaluation networks are those of `Subject.panel`; what several networks of one evaluation network say is averaged.
    Accuracies are the numbers ``discriminative/<source>/<network>`` in 0-1, beside
    ``…/confidence`` and ``…/margin``; the `baselines` stand beside the methods, of which
    ``real`` are test images. The table ``discriminative`` adds standard deviations.
    """

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        judged = raw_and_projected(subject, sources) | baselines(subject, sources)
        rows = each_network(
            subject.panel(),
            lambda network: [
                {"source": source, **scores(network, explanations)}
                for source, explanations in judged.items()
            ],
        )
        means = over_networks(rows, values=("accuracy", "confidence", "margin"))
        metrics = {}
        for row in means:
            name = f"discriminative/{row['source']}/{row['network']}"
            metrics[name] = float(row["accuracy"])
            metrics |= {f"{name}/{value}": float(row[value]) for value in ("confidence", "margin")}
        return Outcome(
            metrics=metrics,
            tables={"discriminative": means, "discriminative_networks": rows},
        )


@torch.no_grad()
def scores(network: nn.Module, explanations: Explanations) -> Row:
    """Means over the images: accuracy, probability of the class, and its lead in logits.

    The lead is the class's logit less the highest other one: unlike accuracy and confidence it
    does not saturate.
    """
    logits: Tensor = network(explanations.images)
    labels = explanations.labels[:, None]
    own = logits.gather(1, labels)
    others = logits.scatter(1, labels, -torch.inf).amax(1, keepdim=True)
    return {
        "accuracy": (own > others).double().mean().item(),
        "confidence": logits.softmax(1).gather(1, labels).double().mean().item(),
        "margin": (own - others).double().mean().item(),
    }
