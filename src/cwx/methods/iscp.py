"""ISCP: the pattern of a canvas that makes a network predict its class for every image (ISCP, §3,
Algorithm 1).
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import lightning as L
import torch
from torch import Tensor, nn

from cwx.data.canvases import (
    check_other_classes,
    choose_canvases,
    classes_to_explain,
    nontarget_subset,
    test_logits,
)
from cwx.data.nontarget import Nontarget, NontargetBatch
from cwx.explanations.patterns import Patterns
from cwx.functional.canvas_sampling import Canvas
from cwx.functional.class_names import ClassName
from cwx.functional.learned_canvas import LearnedCanvas
from cwx.functional.mask_search import search_gradients
from cwx.methods._mask_search import (
    alpha_values,
    check_alpha_size,
    check_canvas_network,
    check_settings,
    choose_alphas,
    success_rate,
)
from cwx.methods._parallel_search import check_counts, leave_unchanged, parallel_step
from cwx.training.plan import Plan
from cwx.training.subject import Subject


class MaskSearch(L.LightningModule):
    """Searches a mask for each pair of class and canvas, all pairs in parallel.

    Each search is Algorithm 1 with its own order of images; a step is one batch of all searches.
    With several weights α there is a search for each weight, and each class keeps the masks of the
    weight whose patterns are the most successful on D_n, the mean over its canvases.
    Under DDP each rank computes a part of the searches, and all ranks hold all masks.

    Args:
        subject: the data and the networks.
        seed: of the selected test images, random canvases and the order of images.
        explains: the kind of network; the first network of the kind is explained.
        classes: classes to explain, by name or index; null for all.
        canvas: how canvases are sampled.
        canvas_network: the kind of network whose outputs choose the canvases; null for the
            explained network.
        canvas_classes: ``own`` searches a class on its canvases, ``other`` on those of another
            explained class, drawn by the seed: a control.
        canvases: N, canvases per class.
        searched: fraction of the test images, 0-1; those of other classes are D_n.
        passes: T, passes over D_n.
        batch_size: B, images per search and step.
        initial: initial value of m, 0-1.
        alpha: weight of the sparsity of the mask, 0 or more, or a list to choose from.
        alpha_size: size of the patterns by which a weight is chosen from a list, a fraction of the
            image's pixels in 0-1.
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
    step_setting = "optimizer.lr"
    means: Tensor
    alphas: Tensor
    success: Tensor

    def __init__(
        self,
        *,
        subject: Subject,
        seed: int,
        stage: str,
        explains: str,
        classes: Annotated[Sequence[ClassName], "not empty, distinct"] | None,
        canvas: Canvas,
        canvas_network: str | None,
        canvas_classes: Literal["own", "other"],
        canvases: Annotated[int, ">= 1"],
        searched: Annotated[float, "> 0, <= 1"],
        passes: Annotated[int, ">= 1"],
        batch_size: Annotated[int, ">= 1"],
        initial: Annotated[float, ">= 0, <= 1"],
        alpha: Annotated[float, ">= 0"]
        | Annotated[Sequence[Annotated[float, ">= 0"]], "not empty, distinct"],
        alpha_size: Annotated[float, "> 0, <= 1"],
        beta: Annotated[float, ">= 0"],
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        learned_canvas: LearnedCanvas | None,
        ties: Literal["drawn", "mean"],
        channels_last: bool,
        chunk: Annotated[int, ">= 1"] | None,
    ) -> None:
        super().__init__()
        check_counts(stage, passes=passes, batch_size=batch_size, chunk=chunk)
        check_settings(stage, initial, beta)
        self.alpha_values, self.alpha_size = alpha_values(alpha, stage), alpha_size
        self.subject, self.stage, self.explains = subject, stage, explains
        self.beta, self.optimizer = beta, optimizer
        self.learned_canvas, self.chunk, self.epochs = learned_canvas, chunk, passes
        data = subject.data
        test = data.splits.test
        self.network = subject.first_network(explains)
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        explained = classes_to_explain(classes, data, f"method.{stage}.classes")
        chooser = subject.first_network(canvas_network) if canvas_network else self.network
        chosen = choose_canvases(
            data,
            test_logits(chooser, data, subject.device),
            canvas=canvas,
            classes=explained,
            count=canvases,
            seed=seed,
            stage=stage,
        )
        if canvas_classes == "other":
            check_other_classes(explained, data.classes, stage)
            chosen = chosen.of_other_classes(explained, seed)
        self.chosen_for = chosen.chosen_for
        self.searched = nontarget_subset(len(test), searched, seed, f"method.{stage}.searched")
        weights = len(self.alpha_values)
        self.labels = chosen.labels.repeat(weights)
        keys = list(zip(chosen.labels.tolist(), chosen.ranks.tolist(), strict=True))
        # A search has the order of images of its class and canvas, whatever its weight.
        self.batches = Nontarget(
            searches=keys * weights,
            labels=test.labels,
            searched=self.searched,
            batch_size=batch_size,
            seed=seed,
        )
        masks = torch.full((len(self.labels), *data.image_shape[1:]), initial)
        self.masks = nn.Parameter(masks)
        self.ties = ties
        self.register_buffer("means", torch.zeros_like(masks))
        alphas = torch.tensor(self.alpha_values).repeat_interleave(len(keys))
        self.register_buffer("alphas", alphas, persistent=False)
        self.register_buffer("success", torch.zeros(len(masks)))
        images = chosen.images.repeat(weights, 1, 1, 1)
        self.canvases = nn.Parameter(images, requires_grad=learned_canvas is not None)

    @classmethod
    def check(
        cls,
        plan: Plan,
        *,
        stage: str,
        classes: Sequence[ClassName] | None,
        canvas_network: str | None,
        canvas_classes: Literal["own", "other"],
        searched: float,
        alpha: float | Sequence[float],
        alpha_size: float,
        **_: Any,
    ) -> None:
        """Refuse settings that do not fit the test images, before training.

        Raises:
            ValueError: a class has no test images, `searched` selects none, `alpha_size` is of no
                pixel and there are several weights, a single class has no other class, or the study
                has no `canvas_network`.
        """
        check_alpha_size(alpha, alpha_size, plan.data.image_shape[1:], stage)
        explained = classes_to_explain(classes, plan.data, f"method.{stage}.classes")
        if canvas_classes == "other":
            check_other_classes(explained, plan.data.classes, stage)
        check_canvas_network(canvas_network, plan.kinds, stage)
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
                alpha=self.alphas[chunk.searches],
                beta=self.beta,
                canvas=updates_canvas,
            )

        return parallel_step(
            self,
            batch,
            gradients,
            optimised=self.canvases if updates_canvas else self.masks,
            frozen=self._frozen(),
            area=self.masks.detach().mean(),
        )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        leave_unchanged(self._frozen())

    def _updates_canvas(self) -> bool:
        """Whether this step updates the canvases instead of the masks."""
        learned = self.learned_canvas
        return learned is not None and learned.updates_canvas(self.global_step)

    def _frozen(self) -> list[nn.Parameter]:
        """The parameters of the optimiser that this step does not change."""
        if self.learned_canvas is None:
            return []
        return [self.masks if self._updates_canvas() else self.canvases]

    @torch.no_grad()
    def on_train_batch_end(self, _: Any, batch: NontargetBatch, batch_idx: int) -> None:
        for parameter in (self.masks, self.canvases):
            parameter.clamp_(0, 1)
        # Not of a search that waits until the others end their pass.
        rows = batch.searches
        steps = self.current_epoch * self.batches.lengths.to(rows.device)[rows] + batch_idx + 1
        self.means[rows] += (self.masks[rows] - self.means[rows]) / steps[:, None, None]

    def on_train_epoch_end(self) -> None:
        if len(self.alpha_values) > 1 and self.current_epoch == self.epochs - 1:
            self.success.copy_(self._success())

    def _success(self) -> Tensor:
        """The success rate of each search's pattern on its D_n; a rank measures a part."""
        rates, data = torch.zeros_like(self.success), self.subject.data
        for rows in self._rows_by_weight():
            cut = self._patterns(rows).cut(self.alpha_size)
            for index, search in enumerate(rows.tolist()):
                if search % int(self.trainer.world_size) == self.global_rank:
                    label = int(self.labels[search])
                    rates[search] = success_rate(
                        self.network,
                        cut.attach(index),
                        self.images[self.batches.pools[label].to(self.device)],
                        label,
                        normalization=data.normalization,
                        batch_size=data.batch_size,
                    )
        summed: Tensor = self.trainer.strategy.reduce(rates, reduce_op="sum")
        return summed

    def _rows_by_weight(self) -> Tensor:
        """Indices of the searches ``[a, n]`` by weight."""
        return torch.arange(len(self.labels)).view(len(self.alpha_values), -1)

    def configure_optimizers(self) -> Any:
        groups: list[dict[str, Any]] = [{"params": [self.masks]}]
        if (learned := self.learned_canvas) is not None:
            groups.append({"params": [self.canvases], "lr": learned.step / learned.scale})
        return self.optimizer(groups)

    def explanations(self) -> Patterns:
        """The current masks, before thresholding to a mask size.

        Of several weights those of the chosen weight; before the end of the search of the first.
        """
        rows = self._rows_by_weight()
        if len(rows) == 1 or not self.success.any():
            return self._patterns(rows[0])
        chosen = choose_alphas(
            self.success.cpu()[rows],
            self.labels[rows[0]],
            self.alpha_values,
            self.subject.data.classes,
            self.stage,
        )
        return self._patterns(rows.gather(0, chosen[None])[0])

    def _patterns(self, rows: Tensor) -> Patterns:
        """The current masks of some searches."""
        values = torch.tensor(self.alpha_values, dtype=torch.float64)
        return Patterns(
            explains=self.explains,
            masks=self.masks.detach().cpu()[rows],
            canvases=self.canvases.detach().cpu()[rows],
            labels=self.labels[rows],
            searched=self.searched,
            means=self.means.cpu()[rows] if self.ties == "mean" else None,
            canvas_labels=self.chosen_for[rows % len(self.chosen_for)],
            alphas=values[rows // (len(self.labels) // len(values))],
        )
