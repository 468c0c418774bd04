"""Accuracy of trained networks on the explanations (CWX, Table 1)."""

from functools import partial

import torch
from torch import nn

from cwx.evaluations.outcome import (
    Outcome,
    Row,
    Sources,
    baselines,
    mean_over_networks,
    measure_networks,
    raw_and_projected,
)
from cwx.explanations.images import Explanations
from cwx.functional.maximum_margin import margins
from cwx.networks.eval_mode import device_of
from cwx.networks.finite_logits import finite_logits
from cwx.training.subject import Subject


class Discriminative:
    """Accuracy, confidence and margin of trained networks on the explanations.

    The networks are those of `Subject.panel`; values are averaged over the networks of one name.
    Accuracies are the metrics ``discriminative/<source>/<network>`` in 0-1, with
    ``…/confidence`` in 0-1 and ``…/margin`` in logits. Sources are the methods, raw and
    ``-projected``, and the `baselines`; the baseline ``real`` are test images. The table
    ``discriminative`` adds standard deviations, ``discriminative_networks`` has a row per network.
    """

    on_all_ranks = True

    def __call__(self, subject: Subject, sources: Sources) -> Outcome:
        evaluated = raw_and_projected(subject, sources) | baselines(subject, sources)

        def measured(network: nn.Module, source: str) -> Row:
            return {"source": source, **scores(network, evaluated[source])}

        rows = measure_networks(
            subject.panel(),
            lambda network: subject.ranks.map(partial(measured, network), evaluated),
        )
        means = mean_over_networks(rows, values=("accuracy", "confidence", "margin"))
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
    """Means over the images: accuracy, probability of the label (confidence) and logit margin.

    The margin is the logit of the label minus the highest other logit. Unlike accuracy and
    confidence it does not saturate.
    """
    logits = finite_logits(network(explanations.images.to(device_of(network)))).cpu()
    of_labels = margins(logits, explanations.labels)
    return {
        "accuracy": (of_labels > 0).double().mean().item(),
        "confidence": logits.softmax(1)
        .gather(1, explanations.labels[:, None])
        .double()
        .mean()
        .item(),
        "margin": of_labels.double().mean().item(),
    }
