"""Training with the consistency loss (Dong et al., §3, Eq 8-11)."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn

from cwx.data.batches import Batch
from cwx.data.datamodule import ImageData
from cwx.functional.attack_targets import others, shifts
from cwx.functional.attacks import Attack
from cwx.functional.augmentation import Strategy
from cwx.functional.consistency_loss import consistency
from cwx.methods.expert import Expert, Optimizer, Schedule
from cwx.networks.layers import feature_layer
from cwx.networks.unit_layers import LOGITS, UnitLayer
from cwx.networks.unit_outputs import unit_outputs
from cwx.storage.recording import Recording
from cwx.training.objectives import TARGETS, Step, perturb


class ConsistencyObjective:
    """Cross-entropy on clean and adversarial images, and a penalty on the distance of their
    features (Dong et al., Eq 8-11).

        α CE(f(x), y) + (1 − α) CE(f(G(x, y*)), y) + β ‖φ(x) − φ(G(x, y*))‖²

    G is the attack, in eval mode, towards a random other class y*. No gradient flows through G;
    it flows through both φ. Clean and adversarial images pass the network in one batch, so that
    the statistics of batch norm include both (Kurakin et al. 2017, §3). With β = 0, plain
    adversarial training, features are not computed.

    Args:
        attack: G, targeted.
        alpha: α, the weight of the clean images, 0-1.
        beta: β, the weight of the squared distance, a sum over features; 0 or more.
        layer: the name of the layer whose output is φ; ``None`` for the last layer whose output
            has more than one spatial position.

    Attributes:
        first_terms: of the first batch, the means of the cross-entropies and of the penalty.

    Raises:
        ValueError: a setting is out of range, the attack is missing or not targeted, the data
            have a single class, or the network has no such layer.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        data: ImageData,
        attack: Attack | None,
        alpha: float,
        beta: float,
        layer: str | None,
    ) -> None:
        if not 0 <= alpha <= 1:
            raise ValueError(f"recipe.alpha is {alpha}: give a weight in 0-1")
        if not 0 <= beta < math.inf:
            raise ValueError(f"recipe.beta is {beta}: give 0 or more, finite")
        if attack is None or not attack.targeted:
            state = "none" if attack is None else "not targeted"
            raise ValueError(
                f"recipe.attack is {state}, but the consistency loss needs a targeted attack: "
                "set attack@recipe.attack=targeted_fgs, or recipe.attack.targeted to true"
            )
        if len(data.classes) < 2:
            raise ValueError(
                "the consistency loss attacks images towards another class, but the number of "
                f"classes is {len(data.classes)}: give data of 2 classes or more"
            )
        self.data, self.attack, self.alpha, self.beta = data, attack, alpha, beta
        self.first_terms: tuple[Tensor, Tensor] | None = None
        setting = "recipe.layer"
        self.layer = feature_layer(network, data.image_shape, layer, setting)

    def __call__(self, network: nn.Module, batch: Batch, step: Step) -> Tensor:
        images = torch.cat([batch.images, self._adversarial(network, batch, step)])
        logits, features = self._outputs(network, images)
        clean_logits, adversarial_logits = logits.tensor_split(2)
        clean_features, adversarial_features = (
            (None, None) if features is None else features.tensor_split(2)
        )
        losses = consistency(
            clean_logits,
            adversarial_logits,
            clean_features,
            adversarial_features,
            batch.labels,
            alpha=self.alpha,
            beta=self.beta,
        )
        if self.first_terms is None:
            of_logits = consistency(
                clean_logits,
                adversarial_logits,
                None,
                None,
                batch.labels,
                alpha=self.alpha,
                beta=0,
            ).detach()
            self.first_terms = of_logits.mean(), (losses.detach() - of_logits).mean()
        return losses.sum()

    def _outputs(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits and features; no features if β is 0."""
        if not self.beta:
            logits: Tensor = network(images)
            return logits, None
        # The features as the layer gives them, whatever follows.
        with unit_outputs(network, [UnitLayer(name=self.layer), LOGITS]) as forward:
            outputs = forward(images)
        return outputs[LOGITS.name], outputs[self.layer]

    def _adversarial(self, network: nn.Module, batch: Batch, step: Step) -> Tensor:
        classes = len(self.data.classes)
        drawn = shifts(step.total, classes, step.stream(TARGETS))[step.rows]
        targets = others(batch.labels, drawn, classes)
        return perturb(network, self.attack, batch, targets, step, self.data)


class ConsistencyTrainer(Expert):
    """Trains networks whose features an attack changes little: `Expert` with
    `ConsistencyObjective`.

    Args:
        alpha, beta, layer: see `ConsistencyObjective`.
        compile: ``None``: compiled networks have no outputs of layers.
        networks, data, seeds, stages, epochs, batch_size, augment, attack, optimizer, schedule,
            channels_last, recording: see `Expert`; the attack is targeted.

    Raises:
        ValueError: a setting is out of range, the attack is missing or not targeted, the data
            have a single class, or the network has no such layer.
    """

    objective: ConsistencyObjective

    def __init__(
        self,
        *,
        networks: Sequence[nn.Module],
        data: ImageData,
        seeds: Sequence[int],
        stages: Sequence[str],
        epochs: Annotated[int, ">= 1"],
        batch_size: Annotated[int, ">= 1"],
        augment: Strategy,
        attack: Attack | None,
        alpha: Annotated[float, ">= 0, <= 1"],
        beta: Annotated[float, ">= 0"],
        layer: str | None,
        optimizer: Optimizer,
        schedule: Schedule | None,
        channels_last: bool,
        compile: str | None,
        recording: Recording,
    ) -> None:
        if compile is not None:
            raise ValueError(
                f"recipe.compile is {compile}, but the consistency loss reads the outputs of a "
                "layer, which compiled networks do not have: set recipe.compile=null"
            )
        super().__init__(
            networks=networks,
            data=data,
            seeds=seeds,
            stages=stages,
            epochs=epochs,
            batch_size=batch_size,
            augment=augment,
            attack=attack,
            optimizer=optimizer,
            schedule=schedule,
            channels_last=channels_last,
            recording=recording,
            objective=partial(ConsistencyObjective, alpha=alpha, beta=beta, layer=layer),
        )

    def divergence_remedy(self) -> str:
        """As of `Expert`; the penalty has no scale of its own, and may exceed the cross-entropy."""
        remedy, terms = super().divergence_remedy(), self.objective.first_terms
        if terms is None or not self.objective.beta:
            return remedy
        entropy, penalty = (float(term) for term in terms)
        if not penalty > entropy:
            return f"{remedy} or {self.setting}.beta"
        equal = self.objective.beta * entropy / penalty
        return (
            f"lower {self.setting}.beta. At the first step, its term was {penalty:.2g} beside a "
            f"cross-entropy of {entropy:.2g}; at beta={equal:.1g} both would be equal"
        )
