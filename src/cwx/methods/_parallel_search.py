"""One step of independent searches (masks, perturbations) that run in parallel.

Each search has its own gradient, which does not depend on the other searches, the chunks or the
rank.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cwx.data.nontarget import NontargetBatch

# Steps between two checks of the gradients: reading them at every step would stall a GPU.
_CHECK_EVERY = 20
# Maps the searches of a batch to their gradients ``[s, …]`` and their losses ``[s]``, each summed
# over its images.
Gradients = Callable[[NontargetBatch], tuple[Tensor, Tensor]]


class SearchModule(Protocol):
    """A LightningModule that runs searches in parallel.

    Attributes:
        stage: the name of the method.
        chunk: searches per forward pass; ``None`` for all.
        step_setting: the setting of its step size within the method's, such as ``optimizer.lr``.
    """

    stage: str
    chunk: int | None
    trainer: Any
    step_setting: str

    @property
    def global_rank(self) -> int: ...

    @property
    def global_step(self) -> int: ...

    def log(self, *args: Any, **settings: Any) -> None: ...


def parallel_step(
    module: SearchModule,
    batch: NontargetBatch,
    gradients: Gradients,
    *,
    optimised: nn.Parameter,
    frozen: Sequence[nn.Parameter] = (),
    **logged: Tensor,
) -> Tensor:
    """The scalar loss for Lightning, whose gradient is the gradient of every search of this step.

    The graph of a chunk is freed before the next chunk. DDP averages the gradients of the ranks,
    which do not overlap, and requires that all parameters are used. The mean loss per image and
    the tensors of `logged` are logged.

    Args:
        optimised: the parameter to update; row i belongs to search i.
        frozen: other parameters, which this step does not change: see `leave_unchanged`.

    Raises:
        ValueError: a gradient is not finite; not every step is checked.
    """
    ranks = int(module.trainer.world_size)
    gradient = torch.zeros_like(optimised)
    total = torch.zeros((), device=optimised.device)
    for chunk in batch.parts(rank=module.global_rank, ranks=ranks, chunk=module.chunk):
        gradient[chunk.searches], losses = gradients(chunk)
        total += losses.sum()
    if module.global_step % _CHECK_EVERY == 0 and not gradient.isfinite().all():
        setting = f"method.{module.stage}"
        raise ValueError(
            f"{module.stage}: the gradients at step {module.global_step} are not finite numbers: "
            f"lower {setting}.{module.step_setting}, choose precision@precision.methods=float32, "
            f"or explain another network ({setting}.explains)"
        )
    # The mean over ranks is the mean over all images.
    for name, value in {"loss": total * ranks / batch.weights.sum(), **logged}.items():
        module.log(
            f"{module.stage}/{name}", value, prog_bar=True, batch_size=1, sync_dist=ranks > 1
        )
    scalar: Tensor = (optimised * gradient).sum() * ranks
    return scalar + sum(0 * parameter.sum() for parameter in frozen)


def leave_unchanged(frozen: Sequence[nn.Parameter]) -> None:
    """Keep parameters from this optimiser step; to be called between backward pass and step.

    A gradient of 0 still moves a parameter under momentum, Adam or weight decay, and changes the
    state of its optimiser; without a gradient the optimiser leaves both as they are.
    """
    for parameter in frozen:
        parameter.grad = None


def check_counts(stage: str, **counts: int | None) -> None:
    """Refuse counts below 1 among the settings of a method; ``None`` is allowed.

    Raises:
        ValueError: names the first such setting.
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"method.{stage}.{name} is {count}: give 1 or more")
