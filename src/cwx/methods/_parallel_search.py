"""One step of searches that run side by side and share nothing: what masks and perturbations need.

Each is moved by a gradient of its own, whichever others run beside it, in whatever chunks, on
whichever rank.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cwx.data.nontarget import NontargetBatch

# From some searches of a batch to the gradient of each ``[s, …]`` and its loss, summed over its
# images ``[s]``.
Gradients = Callable[[NontargetBatch], tuple[Tensor, Tensor]]


class Searching(Protocol):
    """The LightningModule that a step is of."""

    stage: str
    chunk: int | None
    trainer: Any

    @property
    def global_rank(self) -> int: ...

    def log(self, *args: Any, **settings: Any) -> None: ...


def parallel_step(
    module: Searching,
    batch: NontargetBatch,
    gradients: Gradients,
    *,
    optimised: nn.Parameter,
    frozen: Sequence[nn.Parameter] = (),
    **logged: Tensor,
) -> Tensor:
    """A scalar whose gradient is that of every search of this step, to be returned to Lightning.

    No chunk's graph outlives it. DDP averages the ranks' gradients, which do not overlap, and
    wants all parameters in use. The loss of an image is logged, and whatever is given beside it.

    Args:
        optimised: row i belongs to search i.
        frozen: other parameters, which this step leaves where they are.
    """
    ranks = int(module.trainer.world_size)
    gradient = torch.zeros_like(optimised)
    total = torch.zeros((), device=optimised.device)
    for part in batch.parts(rank=module.global_rank, ranks=ranks, chunk=module.chunk):
        gradient[part.searches], losses = gradients(part)
        total += losses.sum()
    # The mean over ranks is that over all images.
    for name, value in {"loss": total * ranks / batch.weights.sum(), **logged}.items():
        module.log(
            f"{module.stage}/{name}", value, prog_bar=True, batch_size=1, sync_dist=ranks > 1
        )
    scalar: Tensor = (optimised * gradient).sum() * ranks
    return scalar + sum(0 * parameter.sum() for parameter in frozen)


def check_counts(stage: str, **counts: int | None) -> None:
    """Refuse settings of a method, by name, that are not numbers of 1 or more; null is none.

    Raises:
        ValueError: names the first.
    """
    for name, number in counts.items():
        if number is not None and number < 1:
            raise ValueError(f"method.{stage}.{name} is {number}: give 1 or more")
