"""Targeted universal perturbations, one a class and radius: what ISCP is set against (I11)."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from cwx.data.canvases import chosen_classes, nontarget_subset
from cwx.data.nontarget import Nontarget, NontargetBatch
from cwx.explanations.patterns import Perturbations
from cwx.functional.attacks import Linf
from cwx.functional.mask_search import SignDescent
from cwx.functional.universal_perturbation import universal_gradients
from cwx.methods._parallel_search import check_counts, parallel_step
from cwx.training.plan import Plan
from cwx.training.subject import Subject


class UniversalPerturbation(L.LightningModule):
    """Sends the images of all other classes to a class by one δ, for each class and radius.

        δ ← Π(δ − η sign ∇_δ L(x + δ, y))

    with L the mean cross-entropy of a batch and Π the projection to the L∞ ball. All δ are moved
    side by side; those of a class see the same images in the same order, so that none depends on
    which other radii are asked for. Under DDP each rank computes its share of them.

    Args:
        subject: the data and the networks.
        seed: of the images attacked and of their order.
        explains: the kind of network to attack, the first of which is taken.
        classes: to lead to, by name or index; null for all.
        searched: the share of the test images whose non-target ones are attacked.
        epsilons: the radii, on the scale.
        step: η, on the scale.
        scale: what white is on the scale of `epsilons` and `step`: 1, or 255 for grey levels.
        passes: over the images.
        batch_size: images a perturbation and step.
        chunk: perturbations that go through the network together, which bounds memory and does not
            change what is found; null for all.
    """

    leaves = Perturbations
    labels: Tensor
    radii: Tensor

    def __init__(
        self,
        *,
        subject: Subject,
        seed: int,
        stage: str,
        explains: str,
        classes: Sequence[str | int] | None,
        searched: float,
        epsilons: Sequence[float],
        step: float,
        scale: float,
        passes: int,
        batch_size: int,
        chunk: int | None,
    ) -> None:
        super().__init__()
        check_counts(stage, passes=passes, batch_size=batch_size, chunk=chunk)
        self.check_radii(stage, epsilons, step, scale)
        self.subject, self.stage, self.explains = subject, stage, explains
        self.rate, self.chunk, self.epochs = step / scale, chunk, passes
        data, test = subject.data, subject.data.splits.test
        self.network = subject.explained(explains).to(subject.device)
        chosen = torch.tensor(chosen_classes(classes, data, f"method.{stage}.classes"))
        self.searched = nontarget_subset(len(test), searched, seed, f"method.{stage}.searched")
        self.register_buffer("labels", chosen.repeat_interleave(len(epsilons)), persistent=False)
        radii = torch.tensor([epsilon / scale for epsilon in epsilons]).repeat(len(chosen))
        self.register_buffer("radii", radii, persistent=False)
        self.batches = Nontarget(
            searches=[(label, 0) for label in self.labels.tolist()],
            labels=test.labels,
            searched=self.searched,
            batch_size=batch_size,
            seed=seed,
        )
        self.deltas = nn.Parameter(torch.zeros(len(radii), *data.image_shape))

    @staticmethod
    def check_radii(stage: str, epsilons: Sequence[float], step: float, scale: float) -> None:
        """Refuse what no two images are apart.

        Raises:
            ValueError: with the remedy.
        """
        for name, sizes in (("epsilons", list(epsilons)), ("step", [step])):
            if not sizes or not all(0 < size <= scale for size in sizes):
                raise ValueError(
                    f"method.{stage}.{name} is {sizes if name == 'epsilons' else step} on a scale "
                    f"of 0 to {scale}: give sizes above 0 on that scale, or state the scale they "
                    f"are on (method.{stage}.scale=255 for grey levels)"
                )
        if len(set(epsilons)) < len(epsilons):
            raise ValueError(f"method.{stage}.epsilons is {list(epsilons)}: give each radius once")

    @classmethod
    def check(
        cls, plan: Plan, *, stage: str, classes: Sequence[str | int] | None, **_: Any
    ) -> None:
        """Refuse classes without test images before anything is trained."""
        chosen_classes(classes, plan.data, f"method.{stage}.classes")

    def on_fit_start(self) -> None:
        self.images = self.subject.data.splits.test.images.to(self.device)

    def training_step(self, batch: NontargetBatch, batch_idx: int) -> Tensor:
        def gradients(part: NontargetBatch) -> tuple[Tensor, Tensor]:
            return universal_gradients(
                self.network,
                self.deltas[part.searches],
                self.images[part.images].float() / 255,
                self.labels[part.searches],
                part.weights,
                normalization=self.subject.data.normalization,
            )

        return parallel_step(self, batch, gradients, optimised=self.deltas)

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        self.deltas.copy_(Linf().project(self.deltas, self.radii.view(-1, 1, 1, 1)))

    def configure_optimizers(self) -> Any:
        return SignDescent([self.deltas], lr=self.rate)

    def explanations(self) -> Perturbations:
        """The perturbations as they stand."""
        return Perturbations(
            explains=self.explains,
            deltas=self.deltas.detach().cpu().clone(),
            labels=self.labels.cpu().clone(),
            epsilons=self.radii.cpu().clone(),
            searched=self.searched,
        )
