"""Whether networks recognise the explanations (CWX, Table 1; C10)."""

import torch
from torch import Tensor, nn

from cwx.evaluations.outcome import Outcome, Row, Sources, baselines, raw_and_projected
from cwx.explanations import Explanations
from cwx.subject import Subject


class Discriminative:
    """Accuracy, confidence and margin of trained networks on the explanations.

    The judges are the explained expert (``expert``), experts that no method saw (``held-out-0``
    …) and networks of other architectures, by name. Accuracies are the numbers
    ``discriminative/<source>/<judge>`` in 0-1; the `baselines` stand beside the methods, of which
    ``real`` are test images.
    """

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        judges = subject.experts() | dict(subject.judges)
        judged = raw_and_projected(subject, sources) | baselines(subject, sources)
        rows: list[Row] = [
            {"source": source, "judge": judge, **scores(network, explanations)}
            for source, explanations in judged.items()
            for judge, network in judges.items()
        ]
        return Outcome(
            numbers={
                f"discriminative/{row['source']}/{row['judge']}": float(row["accuracy"])
                for row in rows
            },
            tables={"discriminative": rows},
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
