"""The audit of a study's networks: which networks and layers, and their neurons' top images."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from cwx.data.adversarial_set import AdversarialSet
from cwx.data.splits import Splits
from cwx.data.streamed_images import Images
from cwx.data.taxonomy import Taxonomy, correlation_of_classes
from cwx.evaluations.neurons.noise import NoiseImages
from cwx.evaluations.neurons.responses import AdversarialTop, LayerResponses, layer_responses
from cwx.evaluations.neurons.top_images import (
    Activation,
    Audit,
    audit_layers,
    normalized_batches,
)
from cwx.functional.top_activations import TopActivations
from cwx.networks.unit_layers import UnitLayer
from cwx.training.build import build_network
from cwx.training.plan import Plan
from cwx.training.subject import KINDS, Subject

# The experts before and after fine-tuning.
EXPERTS = ("expert", "fine-tuned")


@dataclass(frozen=True, kw_only=True)
class NetworkAudit:
    """The settings of an audit, which several evaluations share.

    Attributes:
        setting: the name of the evaluation's settings, for messages.
        networks: kinds of networks and names of evaluation networks, the first network of each;
            ``None`` for `EXPERTS`, as far as the study has them.
        layers: names; ``None`` for all convolutions and, on tokens, MLPs and the residual stream.
        before_nonlinearity: read the neurons before additions and non-linearities.
        fraction: top images of a neuron as a fraction of the images of each set, in (0, 1).
        activation: from a layer's output to an activation per channel.
        taxonomy: gives distances between classes.
        sigma: σ of the correlation of classes (Eq 2).
        noise: as a control, CS of the adversarial images' originals with noise, too.

    Raises:
        ValueError: `fraction` is out of its range, or `networks` is empty.
    """

    setting: str
    networks: Sequence[str] | None
    layers: Sequence[str] | None
    before_nonlinearity: bool
    fraction: float
    activation: Activation
    taxonomy: Taxonomy
    sigma: float
    noise: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(
                f"{self.setting}.fraction is {self.fraction}: give a fraction between 0 and 1"
            )
        if self.networks is not None and not self.networks:
            raise ValueError(
                f"{self.setting}.networks is empty: name a kind of network such as expert, or give "
                "null"
            )

    def check(self, plan: Plan, check_layers: Callable[[Sequence[UnitLayer]], None]) -> None:
        """Refuse settings that do not fit a planned study.

        Args:
            check_layers: called with the layers of each network of the plan.

        Raises:
            ValueError: with the remedy.
        """
        self.correlation(plan.data.splits)
        evaluation_networks = sorted(plan.networks.keys() - {"network"})
        for name in self.networks or EXPERTS[:1]:
            if name not in KINDS and name not in evaluation_networks:
                choices = [*sorted(KINDS), *evaluation_networks]
                raise ValueError(
                    f"{self.setting}.networks has {name!r}, which is no kind of network and no "
                    f"evaluation network: choose some of {', '.join(choices)}, or give null"
                )
            if factory := plan.networks.get(name if name in evaluation_networks else "network"):
                network = build_network(factory, plan.data, seed=0)
                check_layers(self.unit_layers(network, plan.data.image_shape))

    def correlation(self, splits: Splits) -> Tensor:
        """C of the classes, ``[classes, classes]``.

        Raises:
            ValueError: the taxonomy lacks a class, or C is indefinite.
        """
        return correlation_of_classes(self.taxonomy, splits, self.sigma, self.setting)

    def unit_layers(self, network: nn.Module, image_shape: tuple[int, int, int]) -> list[UnitLayer]:
        """The layers to audit.

        Raises:
            ValueError: as `audit_layers`.
        """
        return audit_layers(
            network,
            image_shape,
            self.layers,
            f"{self.setting}.layers",
            before_nonlinearity=self.before_nonlinearity,
        )

    def network_names(self, subject: Subject) -> list[str]:
        """The names of the networks of a study to audit."""
        pairs = zip(EXPERTS, (subject.trajectories, subject.fine_tuned), strict=True)
        return list(self.networks or [name for name, trajectories in pairs if trajectories])

    def responses(
        self,
        subject: Subject,
        network: nn.Module,
        layers: Sequence[UnitLayer],
        class_correlation: Tensor,
    ) -> list[LayerResponses]:
        """The top images and measures of each layer, divided among the subject's ranks.

        Args:
            network: in eval mode, on the subject's device.
        """
        test, adversarial = subject.data.splits.test, subject.adversarial
        audit = Audit(layers=layers, activation=self.activation, fraction=self.fraction)

        def top_images(parts: Iterable[Images], count: int) -> Mapping[str, TopActivations]:
            data, device = subject.data, subject.device
            batches = normalized_batches(
                parts,
                data.normalization,
                size=data.batch_size,
                device=device,
                ranks=subject.ranks,
            )
            return audit(network, batches, count, subject.ranks)

        real = top_images([test.images], len(test))
        attacked: dict[str, AdversarialTop] = {}
        if adversarial is not None:
            images, count = (part for _, part in adversarial.batches()), len(adversarial)
            attack = top_images(images, count)
            noise = self._noise_top(audit, network, subject, adversarial) if self.noise else {}
            attacked = {
                name: AdversarialTop(
                    top=top,
                    noise=noise.get(name),
                    labels=adversarial.labels,
                    targets=adversarial.targets,
                )
                for name, top in attack.items()
            }
        return [
            layer_responses(
                layer,
                real[layer.name],
                test.labels,
                attacked.get(layer.name),
                class_correlation,
            )
            for layer in layers
        ]

    @staticmethod
    def _noise_top(
        audit: Audit, network: nn.Module, subject: Subject, adversarial: AdversarialSet
    ) -> Mapping[str, TopActivations]:
        """The top images with noise instead of the attack, made by the ranks that read them."""
        data, ranks = subject.data, subject.ranks
        noise = NoiseImages(adversarial, data.splits.test)
        batches = (
            (indices, data.normalization.from_bytes(images.to(subject.device)))
            for indices, images in noise.batches(size=data.batch_size, ranks=ranks)
        )
        top = audit(network, batches, len(adversarial), ranks)
        noise.warn(ranks)
        return top
