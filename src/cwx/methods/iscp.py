"""ISCP: the pattern of a canvas that makes a network predict its class for every image (ISCP, §3,
Algorithm 1; I1-I7).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import lightning as L
import torch
from torch import Tensor, nn

from cwx.data.canvases import choose_canvases, classes_to_explain, nontarget_subset, test_logits
from cwx.data.nontarget import Nontarget, NontargetBatch
from cwx.explanations.patterns import Patterns
from cwx.functional.canvas_sampling import Canvas
from cwx.functional.class_names import ClassName
from cwx.functional.mask_search import search_gradients
from cwx.methods._parallel_search import check_counts, parallel_step
from cwx.training.plan import Plan
from cwx.training.subject import Subject


@dataclass(frozen=True, kw_only=True)
class LearnedCanvas:
    """Optimises canvases alternately with the masks (ISCP, Eq 4; I13).

    Attributes:
        turn: number of mask steps, followed by the same number of canvas steps.
        step: update of each pixel along the sign of the gradient, in units of `scale`.
        scale: the value of white in the units of `step`: 1, or 255 for grey levels.

    Raises:
        ValueError: `turn` is below 1, or `step` is not in (0, `scale`].
    """

    turn: Annotated[int, ">= 1"]
    step: Annotated[float, "> 0"]
    scale: Annotated[float, "> 0, <= 65535"]

    def __post_init__(self) -> None:
        if self.turn < 1:
            raise ValueError(f"learned_canvas.turn is {self.turn}: give 1 step or more")
        if not 0 < self.step <= self.scale:
            raise ValueError(
                f"learned_canvas.step is {self.step} on a scale of 0 to {self.scale}: give a step "
                "above 0 on that scale, or set learned_canvas.scale (255 for grey levels)"
            )


class MaskSearch(L.LightningModule):
    """Searches a mask for each pair of class and canvas, all pairs in parallel.

    Each search is Algorithm 1 with its own order of images; a step is one batch of all searches.
    Under DDP each rank computes a part of the searches, and all ranks hold all masks.

    Args:
        subject: the data and the networks.
        seed: of the selected test images, random canvases and the order of images.
        explains: the kind of network; the first network of the kind is explained.
        classes: classes to explain, by name or index; null for all.
        canvas: how canvases are sampled.
        canvases: N, canvases per class.
        searched: fraction of the test images, 0-1; those of other classes are D_n.
        passes: T, passes over D_n.
        batch_size: B, images per search and step.
        initial: initial value of m, 0-1.
        alpha: weight of the sparsity of the mask, 0 or more.
        beta: weight of its total variation (Eq 3), 0 or more.
        optimizer: builds the optimiser of the masks; its learning rate is η.
        learned_canvas: how canvases are optimised; null keeps them constant.
        ties: order of pixels with equal final mask values (many pixels end at exactly 1): by the
            highest ``mean`` mask over the search, or at random (``drawn``).
        channels_last: compute in this memory format.
        chunk: searches per forward pass; null for all. It limits memory and does not change the
            result.

    Raises:
        ValueError: a setting is out of range, or a class has no test images.
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
        classes: Annotated[Sequence[ClassName], "not empty, distinct"] | None,
        canvas: Canvas,
        canvases: Annotated[int, ">= 1"],
        searched: Annotated[float, "> 0, <= 1"],
        passes: Annotated[int, ">= 1"],
        batch_size: Annotated[int, ">= 1"],
        initial: Annotated[float, ">= 0, <= 1"],
        alpha: Annotated[float, ">= 0"],
        beta: Annotated[float, ">= 0"],
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        learned_canvas: LearnedCanvas | None,
        ties: Literal["drawn", "mean"],
        channels_last: bool,
        chunk: Annotated[int, ">= 1"] | None,
    ) -> None:
        super().__init__()
        self.check_settings(stage, passes, batch_size, initial, alpha, beta, chunk)
        self.subject, self.stage, self.explains = subject, stage, explains
        self.alpha, self.beta, self.optimizer = alpha, beta, optimizer
        self.learned_canvas, self.chunk, self.epochs = learned_canvas, chunk, passes
        data = subject.data
        test = data.splits.test
        self.network = subject.first_network(explains).to(subject.device)
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        chosen = choose_canvases(
            data,
            test_logits(self.network, data, subject.device),
            canvas=canvas,
            classes=classes_to_explain(classes, data, f"method.{stage}.classes"),
            count=canvases,
            seed=seed,
            stage=stage,
        )
        self.searched = nontarget_subset(len(test), searched, seed, f"method.{stage}.searched")
        self.labels = chosen.labels
        self.batches = Nontarget(
            searches=list(zip(chosen.labels.tolist(), chosen.ranks.tolist(), strict=True)),
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
        """Refuse settings out of range.

        Raises:
            ValueError: names the first such setting.
        """
        check_counts(stage, passes=passes, batch_size=batch_size, chunk=chunk)
        for name, weight in (("alpha", alpha), ("beta", beta)):
            if weight < 0:
                raise ValueError(f"method.{stage}.{name} is {weight}: give 0 or more")
        if not 0 <= initial <= 1:
            raise ValueError(f"method.{stage}.initial is {initial}: give a mask in 0-1")

    @classmethod
    def check(
        cls,
        plan: Plan,
        *,
        stage: str,
        classes: Sequence[ClassName] | None,
        searched: float,
        **_: Any,
    ) -> None:
        """Refuse settings that do not fit the test images, before training.

        Raises:
            ValueError: a class has no test images, `searched` selects none.
        """
        classes_to_explain(classes, plan.data, f"method.{stage}.classes")
        nontarget_subset(len(plan.data.splits.test), searched, 0, f"method.{stage}.searched")

    def on_fit_start(self) -> None:
        self.images = self.subject.data.splits.test.images.to(self.device)

    def training_step(self, batch: NontargetBatch, batch_idx: int) -> Tensor:
        updates_canvas = self._updates_canvas()

        def gradients(chunk: NontargetBatch) -> tuple[Tensor, Tensor]:
            return search_gradients(
                self.network,
                self.masks[chunk.searches],
                self.canvases[chunk.searches],
                self.images[chunk.images].float() / 255,
                self.labels.to(self.device)[chunk.searches],
                chunk.weights,
                normalization=self.subject.data.normalization,
                alpha=self.alpha,
                beta=self.beta,
                canvas=updates_canvas,
            )

        optimised, frozen = self.masks, self.canvases
        if updates_canvas:
            optimised, frozen = frozen, optimised
        return parallel_step(
            self,
            batch,
            gradients,
            optimised=optimised,
            frozen=[frozen] if self.learned_canvas else [],
            area=self.masks.detach().mean(),
        )

    def _updates_canvas(self) -> bool:
        """Whether this step updates the canvases instead of the masks."""
        learned = self.learned_canvas
        return learned is not None and self.global_step // learned.turn % 2 == 1

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        for parameter in (self.masks, self.canvases):
            parameter.clamp_(0, 1)
        self.means += (self.masks - self.means) / self.global_step

    def configure_optimizers(self) -> Any:
        groups: list[dict[str, Any]] = [{"params": [self.masks]}]
        if self.learned_canvas:
            learning_rate = self.learned_canvas.step / self.learned_canvas.scale
            groups.append({"params": [self.canvases], "lr": learning_rate})
        return self.optimizer(groups)

    def explanations(self) -> Patterns:
        """The current masks, before thresholding to a mask size."""
        return Patterns(
            explains=self.explains,
            masks=self.masks.detach().cpu().clone(),
            canvases=self.canvases.detach().cpu().clone(),
            labels=self.labels.clone(),
            searched=self.searched,
            means=self.means.cpu().clone() if self.ties == "mean" else None,
        )
