"""Images of the largest margin of each class (MM-BD, Wang et al. 2024)."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import lightning as L
import torch
from torch import Tensor, nn

from cwx.data.nontarget import NontargetBatch
from cwx.data.step_loaders import Steps, epoch_length
from cwx.explanations.margins import Margins
from cwx.functional.class_names import ClassName, named_or_all
from cwx.functional.maximum_margin import margin_gradients, margins
from cwx.functional.rng import stream
from cwx.methods._parallel_search import check_counts, parallel_step
from cwx.training.plan import Plan
from cwx.training.subject import Subject

# Tensors of the size of all images: the images, their gradients twice, the optimiser's momentum.
_TENSORS = 4


class MaximumMargin(L.LightningModule):
    """Projected gradient ascent on the margin of each class, from random images.

        x ← Π(x + η ∇_x (f_y(x) − max_{j≠y} f_j(x)))        Π clips to pixels in 0-1

    It needs no images. The statistic of a class is the largest margin of its starts: a backdoor
    raises that of its target. All starts of all classes are optimised in parallel, and do not
    depend on each other. Under DDP each rank computes a part of them.

    Args:
        subject: the data and the networks.
        seed: of the random images.
        explains: the kind of network; the first network of the kind is searched.
        classes: by name or index; null for all.
        starts: random images per class, uniform in 0-1.
        iterations: steps of gradient ascent.
        optimizer: builds the optimiser from the images; its learning rate is η, in unit pixels.
        chunk: images per forward pass; null for all. It limits memory and does not change the
            result.
        checkpoint_every: largest number of steps between two checkpoints.

    Raises:
        ValueError: a setting is out of range, or there is no such class.
    """

    leaves = Margins
    step_setting = "optimizer.lr"
    labels: Tensor
    start_margins: Tensor

    def __init__(
        self,
        *,
        subject: Subject,
        seed: int,
        stage: str,
        explains: str,
        classes: Annotated[Sequence[ClassName], "not empty, distinct"] | None,
        starts: Annotated[int, ">= 1"],
        iterations: Annotated[int, ">= 1"],
        optimizer: Callable[[Sequence[Tensor]], torch.optim.Optimizer],
        chunk: Annotated[int, ">= 1"] | None,
        checkpoint_every: Annotated[int, ">= 1"],
    ) -> None:
        super().__init__()
        check_counts(stage, starts=starts, chunk=chunk)
        self.subject, self.stage, self.explains = subject, stage, explains
        self.starts, self.optimizer, self.chunk = starts, optimizer, chunk
        self.batches = Steps(epoch_length(iterations, checkpoint_every))
        self.epochs = iterations // self.batches.count
        self.network = subject.first_network(explains)
        chosen = _labels(classes, subject.data.classes, stage)
        keys = [(label, start) for label in chosen for start in range(starts)]
        shape = subject.data.image_shape
        images = [torch.rand(shape, generator=stream(seed, *key)) for key in keys]
        self.images = nn.Parameter(torch.stack(images))
        labels = torch.tensor(chosen).repeat_interleave(starts)
        self.register_buffer("labels", labels, persistent=False)
        # Of the images after the last epoch; none is known before the first.
        self.register_buffer("start_margins", torch.full((len(keys),), -torch.inf))

    @classmethod
    def check(
        cls,
        plan: Plan,
        *,
        stage: str,
        classes: Sequence[ClassName] | None,
        starts: int,
        **_: Any,
    ) -> None:
        """Refuse classes that do not exist and images that exceed the main memory.

        Raises:
            ValueError: names the setting.
        """
        count = len(_labels(classes, plan.data.classes, stage))
        numbers = _TENSORS * count * math.prod(plan.data.image_shape)
        plan.require_memory(f"method.{stage}.starts", starts, numbers)

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        def gradients(chunk: NontargetBatch) -> tuple[Tensor, Tensor]:
            return margin_gradients(
                self.network,
                self.images[chunk.searches],
                self.labels[chunk.searches],
                normalization=self.subject.data.normalization,
            )

        return parallel_step(self, self._searches(), gradients, optimised=self.images)

    def _searches(self) -> NontargetBatch:
        """All searches, each of weight 1 and without images of the data."""
        count, device = len(self.images), self.device
        return NontargetBatch(
            searches=torch.arange(count, device=device),
            images=torch.zeros(count, 0, dtype=torch.long, device=device),
            weights=torch.ones(count, 1, device=device),
        )

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        self.images.clamp_(0, 1)

    @torch.no_grad()
    def on_train_epoch_end(self) -> None:
        normalize = self.subject.data.normalization.normalize
        for part in self._searches().parts(rank=0, ranks=1, chunk=self.chunk):
            logits = self.network(normalize(self.images[part.searches])).float()
            self.start_margins[part.searches] = margins(logits, self.labels[part.searches])
        if not self.start_margins.isfinite().all():
            raise ValueError(
                f"{self.stage}: the margins of the network {self.explains!r} are not finite "
                f"numbers after {self.global_step} steps: lower "
                f"method.{self.stage}.optimizer.lr, or explain another network "
                f"(method.{self.stage}.explains)"
            )

    def configure_optimizers(self) -> Any:
        return self.optimizer([self.images])

    def explanations(self) -> Margins:
        """The margins after the last epoch, and the image of each class's best start."""
        by_class = self.start_margins.detach().cpu().view(-1, self.starts).clone()
        first = torch.arange(len(by_class)) * self.starts
        best = first + by_class.argmax(1)
        return Margins(
            explains=self.explains,
            unit_images=self.images.detach().cpu()[best].clone(),
            labels=self.labels.cpu()[first].clone(),
            start_margins=by_class,
        )


def _labels(names: Sequence[ClassName] | None, classes: Sequence[str], stage: str) -> list[int]:
    """The classes to search, by index.

    Raises:
        ValueError: there is no such class, or a single class, which has no margin.
    """
    if len(classes) < 2:
        raise ValueError(
            f"method.{stage} needs two classes or more, for a margin compares logits, and the data "
            f"have {len(classes)}: leave {stage} out of method=[…]"
        )
    return named_or_all(names, classes, f"method.{stage}.classes")
