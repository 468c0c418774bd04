"""Targeted universal perturbations, one per class and radius: the baseline of ISCP."""

from collections.abc import Sequence
from typing import Annotated, Any

import lightning as L
import torch
from torch import Tensor, nn

from cwx.data.canvases import check_nontarget, nontarget_subset
from cwx.data.nontarget import Nontarget, NontargetBatch
from cwx.explanations.patterns import Perturbations
from cwx.functional.attacks import Linf
from cwx.functional.class_names import ClassName, named_or_all
from cwx.functional.mask_search import SignDescent
from cwx.functional.universal_perturbation import universal_gradients
from cwx.methods._parallel_search import check_counts, parallel_step
from cwx.training.plan import Plan
from cwx.training.subject import Subject


class UniversalPerturbation(L.LightningModule):
    """Optimises one δ per class y and radius so that x + δ is classified as y for all images x of
    other classes.

        δ ← Π(δ − η sign ∇_δ L(x + δ, y))

    with L the mean cross-entropy of a batch and Π the projection onto the L∞ ball. All δ are
    optimised in parallel. All δ of a class use the same images in the same order, so that a δ does
    not depend on the other radii. Under DDP each rank computes a part of the perturbations.

    Args:
        subject: the data and the networks.
        seed: of the selected test images and their order.
        explains: the kind of network; the first network of the kind is attacked.
        classes: target classes, by name or index; null for all. They need no images of their own.
        searched: fraction of the test images, 0-1; those of other classes are attacked.
        epsilons: the radii, in units of `scale`.
        step: η, in units of `scale`.
        scale: the value of white in the units of `epsilons` and `step`: 1, or 255 for grey levels.
        passes: passes over the images.
        batch_size: images per perturbation and step.
        chunk: perturbations per forward pass; null for all. It limits memory and does not change
            the result.

    Raises:
        ValueError: a setting is out of range, or there are no test images of other classes.
    """

    leaves = Perturbations
    step_setting = "step"
    labels: Tensor
    radii: Tensor

    def __init__(
        self,
        *,
        subject: Subject,
        seed: int,
        stage: str,
        explains: str,
        classes: Annotated[Sequence[ClassName], "not empty, distinct"] | None,
        searched: Annotated[float, "> 0, <= 1"],
        epsilons: Annotated[Sequence[Annotated[float, "> 0"]], "not empty, distinct"],
        step: Annotated[float, "> 0"],
        scale: Annotated[float, "> 0, <= 65535"],
        passes: Annotated[int, ">= 1"],
        batch_size: Annotated[int, ">= 1"],
        chunk: Annotated[int, ">= 1"] | None,
    ) -> None:
        super().__init__()
        check_counts(stage, passes=passes, batch_size=batch_size, chunk=chunk)
        self.check_radii(stage, epsilons, step, scale)
        self.subject, self.stage, self.explains = subject, stage, explains
        self.learning_rate, self.chunk, self.epochs = step / scale, chunk, passes
        data, test = subject.data, subject.data.splits.test
        self.network = subject.first_network(explains)
        targets = named_or_all(classes, data.classes, f"method.{stage}.classes")
        self.searched = nontarget_subset(len(test), searched, seed, f"method.{stage}.searched")
        check_nontarget(self.searched, test.labels, targets, data.classes, stage)
        chosen = torch.tensor(targets)
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
        """Refuse radii and steps outside (0, `scale`], and repeated radii.

        Raises:
            ValueError: names the setting and its value.
        """
        for name, sizes in (("epsilons", list(epsilons)), ("step", [step])):
            if not sizes or not all(0 < size <= scale for size in sizes):
                raise ValueError(
                    f"method.{stage}.{name} is {sizes if name == 'epsilons' else step} on a scale "
                    f"of 0 to {scale}: give sizes above 0 on that scale, or set "
                    f"method.{stage}.scale=255 for grey levels"
                )
        if len(set(epsilons)) < len(epsilons):
            raise ValueError(f"method.{stage}.epsilons is {list(epsilons)}: give each radius once")

    @classmethod
    def check(
        cls,
        plan: Plan,
        *,
        stage: str,
        classes: Sequence[ClassName] | None,
        searched: float,
        epsilons: Sequence[float],
        step: float,
        scale: float,
        **_: Any,
    ) -> None:
        """Refuse settings that do not fit the test images, before training.

        Raises:
            ValueError: a class does not exist, there are no test images of other classes,
                `searched` selects none, or a radius is above `scale`.
        """
        data, labels = plan.data, plan.data.splits.test.labels
        targets = named_or_all(classes, data.classes, f"method.{stage}.classes")
        nontarget_subset(len(labels), searched, 0, f"method.{stage}.searched")
        # The selection depends on the seed: count all test images.
        all_images = torch.ones_like(labels, dtype=torch.bool)
        check_nontarget(all_images, labels, targets, data.classes, stage)
        cls.check_radii(stage, epsilons, step, scale)

    def on_fit_start(self) -> None:
        self.images = self.subject.data.splits.test.images.to(self.device)

    def training_step(self, batch: NontargetBatch, batch_idx: int) -> Tensor:
        def gradients(chunk: NontargetBatch) -> tuple[Tensor, Tensor]:
            return universal_gradients(
                self.network,
                self.deltas[chunk.searches],
                self.images[chunk.images].float() / 255,
                self.labels[chunk.searches],
                chunk.weights,
                normalization=self.subject.data.normalization,
            )

        return parallel_step(self, batch, gradients, optimised=self.deltas)

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        self.deltas.copy_(Linf().project(self.deltas, self.radii.view(-1, 1, 1, 1)))

    def configure_optimizers(self) -> Any:
        return SignDescent([self.deltas], lr=self.learning_rate)

    def explanations(self) -> Perturbations:
        """The current perturbations."""
        return Perturbations(
            explains=self.explains,
            deltas=self.deltas.detach().cpu().clone(),
            labels=self.labels.cpu().clone(),
            epsilons=self.radii.cpu().clone(),
            searched=self.searched,
        )
