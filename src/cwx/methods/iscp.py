"""ISCP: the part of a canvas that sends every image to a class (ISCP, §3, Algorithm 1; I1-I7)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn

from cwx.data.canvases import choose_canvases, chosen_classes, nontarget_subset, test_logits
from cwx.data.nontarget import Nontarget, NontargetBatch
from cwx.explanations.patterns import Patterns
from cwx.functional.canvas_sampling import Canvas
from cwx.functional.mask_search import search_gradients
from cwx.methods._parallel_search import check_counts, parallel_step
from cwx.training.plan import Plan
from cwx.training.subject import Subject


@dataclass(frozen=True, kw_only=True)
class LearnedCanvas:
    """Steps by which canvases change as well, in turns with the masks (ISCP, Eq 4; I13).

    Attributes:
        turn: steps of the mask, then as many of the canvas.
        step: of each pixel, along the sign of the gradient, on the scale.
        scale: what white is on the scale of `step`.
    """

    turn: int
    step: float
    scale: float

    def __post_init__(self) -> None:
        if self.turn < 1:
            raise ValueError(f"learned_canvas.turn is {self.turn}: give 1 step or more")
        if not 0 < self.step <= self.scale:
            raise ValueError(
                f"learned_canvas.step is {self.step} on a scale of 0 to {self.scale}: give a step "
                "above 0 on that scale, or state the scale it is on (255 for grey levels)"
            )


class MaskSearch(L.LightningModule):
    """Searches a mask for each class and canvas, all of them side by side.

    Each search is Algorithm 1 with an order of images of its own; together they are one batch a
    step. Under DDP each rank computes its share of the searches, and all ranks hold all masks.

    Args:
        subject: the data and the networks.
        seed: of the images searched on, of random canvases and of the order.
        explains: the kind of network to search on, the first of which is taken.
        classes: to explain, by name or index; null for all.
        canvas: how canvases are sampled.
        canvases: N, how many a class.
        searched: the share of the test images whose non-target ones are D_n.
        passes: T, over D_n.
        batch_size: B, images a search and step.
        initial: m at first.
        alpha: weighs the sparsity of the mask.
        beta: weighs its total variation (Eq 3).
        optimizer: makes the optimiser of the masks, whose rate is η.
        learned_canvas: how canvases change as well; null keeps them.
        ties: among pixels whose masks are equal at the end, as most of those wide open are, the
            ones to keep are ``drawn``, or are those with the highest ``mean`` over the search.
        channels_last: compute in that memory format.
        chunk: searches that go through the network together, which bounds memory and does not
            change what is found; null for all.
    """

    leaves = Patterns
    means: Tensor

    def __init__(
        self,
        *,
        subject: Subject,
        seed: int,
        stage: str,
        explains: str,
        classes: Sequence[str | int] | None,
        canvas: Canvas,
        canvases: int,
        searched: float,
        passes: int,
        batch_size: int,
        initial: float,
        alpha: float,
        beta: float,
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        learned_canvas: LearnedCanvas | None,
        ties: Literal["drawn", "mean"],
        channels_last: bool,
        chunk: int | None,
    ) -> None:
        super().__init__()
        self.check_settings(stage, passes, batch_size, initial, alpha, beta, chunk)
        self.subject, self.stage, self.explains = subject, stage, explains
        self.alpha, self.beta, self.optimizer = alpha, beta, optimizer
        self.learned_canvas, self.chunk, self.epochs = learned_canvas, chunk, passes
        data = subject.data
        test = data.splits.test
        self.network = subject.explained(explains).to(subject.device)
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        chosen = choose_canvases(
            data,
            test_logits(self.network, data, subject.device),
            canvas=canvas,
            classes=chosen_classes(classes, data, f"method.{stage}.classes"),
            count=canvases,
            seed=seed,
            stage=stage,
        )
        self.searched = nontarget_subset(len(test), searched, seed, f"method.{stage}.searched")
        self.labels = chosen.labels
        self.batches = Nontarget(
            searches=list(zip(chosen.labels.tolist(), chosen.places.tolist(), strict=True)),
            labels=test.labels,
            searched=self.searched,
            batch_size=batch_size,
            seed=seed,
        )
        masks = torch.full((len(chosen.labels), *data.image_shape[1:]), initial)
        self.masks = nn.Parameter(masks)
        self.ties = ties
        self.register_buffer("means", torch.zeros_like(masks))
        self.canvases = nn.Parameter(chosen.images, requires_grad=learned_canvas is not None)

    @staticmethod
    def check_settings(
        stage: str,
        passes: int,
        batch_size: int,
        initial: float,
        alpha: float,
        beta: float,
        chunk: int | None,
    ) -> None:
        """Refuse what no search can do.

        Raises:
            ValueError: with the remedy.
        """
        check_counts(stage, passes=passes, batch_size=batch_size, chunk=chunk)
        for name, weight in (("alpha", alpha), ("beta", beta)):
            if weight < 0:
                raise ValueError(f"method.{stage}.{name} is {weight}: give 0 or more")
        if not 0 <= initial <= 1:
            raise ValueError(f"method.{stage}.initial is {initial}: give a mask in 0-1")

    @classmethod
    def check(
        cls, plan: Plan, *, stage: str, classes: Sequence[str | int] | None, **_: Any
    ) -> None:
        """Refuse classes without test images before anything is trained."""
        chosen_classes(classes, plan.data, f"method.{stage}.classes")

    def on_fit_start(self) -> None:
        self.images = self.subject.data.splits.test.images.to(self.device)

    def training_step(self, batch: NontargetBatch, batch_idx: int) -> Tensor:
        of_canvas = self._moves_canvas()

        def gradients(part: NontargetBatch) -> tuple[Tensor, Tensor]:
            return search_gradients(
                self.network,
                self.masks[part.searches],
                self.canvases[part.searches],
                self.images[part.images].float() / 255,
                self.labels.to(self.device)[part.searches],
                part.weights,
                normalization=self.subject.data.normalization,
                alpha=self.alpha,
                beta=self.beta,
                canvas=of_canvas,
            )

        optimised, frozen = self.masks, self.canvases
        if of_canvas:
            optimised, frozen = frozen, optimised
        return parallel_step(
            self,
            batch,
            gradients,
            optimised=optimised,
            frozen=[frozen] if self.learned_canvas else [],
            area=self.masks.detach().mean(),
        )

    def _moves_canvas(self) -> bool:
        """Whether it is the canvases' turn."""
        learned = self.learned_canvas
        return learned is not None and self.global_step // learned.turn % 2 == 1

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        for bounded in (self.masks, self.canvases):
            bounded.clamp_(0, 1)
        self.means += (self.masks - self.means) / self.global_step

    def configure_optimizers(self) -> Any:
        groups: list[dict[str, Any]] = [{"params": [self.masks]}]
        if self.learned_canvas:
            rate = self.learned_canvas.step / self.learned_canvas.scale
            groups.append({"params": [self.canvases], "lr": rate})
        return self.optimizer(groups)

    def explanations(self) -> Patterns:
        """The masks as they stand, before they are cut to a size."""
        return Patterns(
            explains=self.explains,
            masks=self.masks.detach().cpu().clone(),
            canvases=self.canvases.detach().cpu().clone(),
            labels=self.labels.clone(),
            searched=self.searched,
            means=self.means.cpu().clone() if self.ties == "mean" else None,
        )
