"""Trigger inversion: the smallest mask and pattern that send images to a class (Wang et al. 2019).

A class that much smaller masks reach than in other networks may be the target of a backdoor.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import lightning as L
import torch
from torch import Tensor, nn

from cwx.data.nontarget import NontargetBatch
from cwx.data.search_images import draw_search_images
from cwx.data.step_loaders import Steps, epoch_length
from cwx.explanations.patterns import Triggers
from cwx.functional.class_names import ClassName, named_or_all
from cwx.functional.rng import stream
from cwx.functional.trigger_inversion import (
    adapt_weights,
    effective_sizes,
    inversion_gradients,
    learning_rate_factor,
    masks_and_patterns,
    noise_scale,
    precedes,
    success_rates,
    trigger_keys,
)
from cwx.methods._parallel_search import check_counts, parallel_step
from cwx.training.plan import Plan
from cwx.training.subject import Subject

# λ stays within these factors of its initial value.
_WEIGHT_RANGE = (1e-3, 1e3)


class TriggerInversion(L.LightningModule):
    """Searches a mask and a pattern for each class, all classes and restarts in parallel.

        min over m, p of  E_x [−log f_y((1 − m) x + m p)] + λ mean(m)

    over images x of other classes. λ is adapted so that batches reach `success`. The result of a
    class is the smallest mask over restarts and steps, on held-out images; masks that do not reach
    `success` there count as larger (`effective_sizes`). Of masks that count as equally large the
    result is that of the higher success rate, then the smaller mask.
    The first half of the steps adds noise to the logits of m and p
    (`cwx.functional.trigger_inversion.noise_scale`). Under DDP each rank computes a part of the
    searches, and all ranks hold all of them.

    Args:
        subject: the data and the networks.
        seed: of the images, the initial values, the order of the images and the noise.
        explains: the kind of network; the first network of the kind is searched.
        classes: target classes, by name or index; null for all.
        images: test images for the search, at most.
        held_out: other test images, on which success is measured, at most. Each set has at most a
            third of the test images: the rest stays for evaluations.
        restarts: searches per class, from different initial values.
        iterations: steps of every search.
        batch_size: images per search and step.
        success: the success rate that a trigger must reach, 0-1.
        weight: initial λ, above 0.
        weight_growth: g, the factor by which λ grows after a batch that reaches `success`, above 1.
        noise: initial standard deviation of the noise on the logits, 0 or more.
        optimizer: builds the optimiser of the logits.
        final_learning_rate: the last learning rate as a fraction of the first, 0-1.
        measure_every: steps between two measurements on the held-out images, which only the second
            half of the steps makes.
        chunk: searches per forward pass; null for all. It limits memory and does not change the
            result.
        checkpoint_every: largest number of steps between two checkpoints.

    Raises:
        ValueError: a setting is out of range, or there are no test images of other classes.
    """

    leaves = Triggers
    step_setting = "optimizer.lr"
    labels: Tensor
    size_weights: Tensor
    best: Tensor
    best_sizes: Tensor
    best_rates: Tensor

    def __init__(
        self,
        *,
        subject: Subject,
        seed: int,
        stage: str,
        explains: str,
        classes: Annotated[Sequence[ClassName], "not empty, distinct"] | None,
        images: Annotated[int, ">= 1"],
        held_out: Annotated[int, ">= 1"],
        restarts: Annotated[int, ">= 1"],
        iterations: Annotated[int, ">= 1"],
        batch_size: Annotated[int, ">= 1"],
        success: Annotated[float, "> 0, <= 1"],
        weight: Annotated[float, "> 0"],
        weight_growth: Annotated[float, "> 1, <= 100"],
        noise: Annotated[float, ">= 0, <= 1000"],
        optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        final_learning_rate: Annotated[float, ">= 0, <= 1"],
        measure_every: Annotated[int, ">= 1"],
        chunk: Annotated[int, ">= 1"] | None,
        checkpoint_every: Annotated[int, ">= 1"],
    ) -> None:
        super().__init__()
        check_counts(stage, restarts=restarts, batch_size=batch_size, chunk=chunk)
        check_counts(stage, images=images, held_out=held_out, measure_every=measure_every)
        self.subject, self.stage, self.explains = subject, stage, explains
        self.seed, self.batch_size, self.success = seed, batch_size, success
        self.growth, self.noise, self.optimizer = weight_growth, noise, optimizer
        self.final_learning_rate, self.measure_every = final_learning_rate, measure_every
        self.chunk, self.iterations, self.restarts = chunk, iterations, restarts
        self.limits = (_WEIGHT_RANGE[0] * weight, _WEIGHT_RANGE[1] * weight)
        self.batches = Steps(epoch_length(iterations, checkpoint_every))
        self.epochs = iterations // self.batches.count
        data = subject.data
        self.network = subject.first_network(explains)
        chosen = _targets(classes, data.classes, stage)
        self.split = draw_search_images(data.splits.test, images, held_out, seed, stage)
        self.keys = [(label, restart) for restart in range(restarts) for label in chosen]
        self.pools = {label: self.split.pool(data.splits.test.labels, label) for label in chosen}
        labels = torch.tensor([label for label, _ in self.keys])
        self.register_buffer("labels", labels, persistent=False)
        channels, height, width = data.image_shape
        shape = (channels + 1, height, width)
        starts = torch.stack([torch.randn(shape, generator=stream(seed, *k)) for k in self.keys])
        # The first masks are half transparent on average, and the first patterns grey.
        starts[:, 0] *= 0.5
        self.logits = nn.Parameter(starts)
        count = len(self.keys)
        self.register_buffer("size_weights", torch.full((count,), weight))
        self.register_buffer("best", starts.clone())
        self.register_buffer("best_sizes", torch.full((count,), torch.inf))
        self.register_buffer("best_rates", torch.full((count,), -1.0))

    @classmethod
    def check(
        cls,
        plan: Plan,
        *,
        stage: str,
        classes: Sequence[ClassName] | None,
        images: int,
        held_out: int,
        **_: Any,
    ) -> None:
        """Refuse settings that do not fit the test images, before training.

        Raises:
            ValueError: a class does not exist, or there are fewer than two test images of other
                classes.
        """
        chosen = _targets(classes, plan.data.classes, stage)
        test = plan.data.splits.test
        split = draw_search_images(test, images, held_out, 0, stage)
        for label in chosen:
            split.check(test.labels, label, plan.data.classes, stage)

    def on_fit_start(self) -> None:
        self.images = self.subject.data.splits.test.images.to(self.device)

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        step = self.global_step
        hits = torch.zeros_like(self.size_weights)

        def gradients(chunk: NontargetBatch) -> tuple[Tensor, Tensor]:
            gradient, losses, rates = inversion_gradients(
                self.network,
                self.logits[chunk.searches],
                self.images[chunk.images].float() / 255,
                self.labels[chunk.searches],
                chunk.weights,
                self.size_weights[chunk.searches],
                self._noise(chunk, step),
                normalization=self.subject.data.normalization,
            )
            hits[chunk.searches] = (rates >= self.success).float()
            return gradient, losses

        sizes = masks_and_patterns(self.logits.detach())[0].mean((1, 2))
        loss = parallel_step(
            self, self._batch(step), gradients, optimised=self.logits, area=sizes.mean()
        )
        hits = self._sum_over_ranks(hits)
        adapt_weights(self.size_weights, hits > 0.5, self.growth, self.limits)
        return loss

    def _batch(self, step: int) -> NontargetBatch:
        rows = [
            pool[torch.randint(len(pool), (self.batch_size,), generator=generator)]
            for pool, generator in (
                (self.pools[key[0]], stream(self.seed, *key, step)) for key in self.keys
            )
        ]
        images = torch.stack(rows).to(self.device)
        searches = torch.arange(len(rows), device=self.device)
        return NontargetBatch(searches, images, torch.ones_like(images, dtype=torch.float32))

    def _noise(self, chunk: NontargetBatch, step: int) -> Tensor | None:
        scale = noise_scale(step, self.iterations, self.noise)
        if not scale:
            return None
        shape = (chunk.images.shape[1], *self.logits.shape[1:])
        keys = [self.keys[search] for search in chunk.searches.tolist()]
        draws = [torch.randn(shape, generator=stream(self.seed, *key, step, 1)) for key in keys]
        return scale * torch.stack(draws).to(self.device)

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        last = self.global_step == self.iterations
        late = 2 * self.global_step > self.iterations
        if last or (late and self.global_step % self.measure_every == 0):
            self._keep_best()

    def _keep_best(self) -> None:
        test, ranks = self.subject.data.splits.test, int(self.trainer.world_size)
        held_out = self.split.held_out.nonzero()[:, 0].to(self.device)
        rates = torch.zeros_like(self.best_rates)
        own = torch.arange(self.global_rank, len(self.keys), ranks, device=self.device)
        rates[own] = success_rates(
            self.network,
            self.logits[own],
            self.images[held_out].float() / 255,
            test.labels[held_out.cpu()].to(self.device),
            self.labels[own],
            normalization=self.subject.data.normalization,
            batch_size=self.subject.data.batch_size,
        )
        rates = self._sum_over_ranks(rates)
        sizes = masks_and_patterns(self.logits)[0].sum((1, 2))
        effective = effective_sizes(sizes, rates, self.success, self.logits[0, 0].numel())
        new = precedes(trigger_keys(effective, rates, sizes), self._best_keys())
        self.best[new], self.best_sizes[new] = self.logits[new], effective[new]
        self.best_rates[new] = rates[new]

    def _best_keys(self) -> Tensor:
        """The keys of the best triggers so far, ``[3, s]``."""
        sizes = masks_and_patterns(self.best)[0].sum((1, 2))
        return trigger_keys(self.best_sizes, self.best_rates, sizes)

    def _sum_over_ranks(self, values: Tensor) -> Tensor:
        summed: Tensor = self.trainer.strategy.reduce(values, reduce_op="sum")
        return summed

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer([self.logits])

        def factor(step: int) -> float:
            return learning_rate_factor(step, self.iterations, self.final_learning_rate)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def explanations(self) -> Triggers:
        """The best trigger of each class over restarts and steps."""
        order = self._best_keys().T.tolist()
        chosen = [
            min((i for i, key in enumerate(self.keys) if key[0] == label), key=order.__getitem__)
            for label in dict.fromkeys(label for label, _ in self.keys)
        ]
        masks, patterns = masks_and_patterns(self.best[chosen].cpu())
        return Triggers(
            explains=self.explains,
            masks=masks.clone(),
            patterns=patterns.clone(),
            labels=self.labels[chosen].cpu(),
            success=self.best_rates[chosen].cpu(),
            required=torch.tensor(self.success),
            searched=self.split.searched | self.split.held_out,
        )


def _targets(names: Sequence[ClassName] | None, classes: Sequence[str], stage: str) -> list[int]:
    """Indices of the target classes, which need no images of their own."""
    return named_or_all(names, classes, f"method.{stage}.classes")
