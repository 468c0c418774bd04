"""Inner-loop gradient descent as one differentiable operation (CWX, Eq 2-5).

Both classes compute the same map (θ_0, S, η) ↦ θ_M with

    v_{m+1} = μ v_m + ∂L(θ_m, batch_m(S))/∂θ,    v_0 = 0
    θ_{m+1} = θ_m − η v_{m+1},                   m = 0 … M−1

and differ only in what they keep for the backward pass: `Plain` all M graphs, `Exact` the states
θ_0 … θ_M, or some of them, and one step's graph at a time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cwx.functional.loss_derivatives import Compiled, Derivatives, Eager, InParts, Loss

# The images and labels that a step trains on, of all the images S; differentiable once in S,
# and a function of the step alone, since the backward pass asks again.
BatchOf = Callable[[Tensor, int], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Descent:
    """M steps of gradient descent.

    Attributes:
        steps: M ≥ 0.
        momentum: μ in [0, 1).
        batch: batch_m.

    Raises:
        ValueError: a setting is out of range.
    """

    steps: int
    momentum: float
    batch: BatchOf

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"the number of inner steps is {self.steps}: give 0 or more")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"the inner momentum is {self.momentum}: give 0 or more, below 1")

    def states(
        self, derivatives: Derivatives, state: "State", images: Tensor, rate: Tensor, steps: range
    ) -> Iterator["State"]:
        """The state before each of `steps`, and the one after the last; without graphs."""
        yield state
        for step in steps:
            theta, velocity = state
            batch, labels = self.batch(images, step)
            velocity = self.velocity(velocity, derivatives.gradient(theta, batch, labels))
            # Without momentum no step needs the last one's velocity.
            state = (theta - rate * velocity, velocity if self.momentum else None)
            yield state

    def reach(
        self, derivatives: Derivatives, start: Tensor, images: Tensor, rate: Tensor
    ) -> Tensor:
        """θ_M, without a graph and with no state kept."""
        for theta, _ in self.states(derivatives, (start, None), images, rate, range(self.steps)):
            reached = theta
        return reached

    def velocity(self, velocity: Tensor | None, gradient: Tensor) -> Tensor:
        """v_{m+1} from v_m (none before the first step) and the gradient at θ_m."""
        return gradient if velocity is None else self.momentum * velocity + gradient


# θ_m and v_m.
State = tuple[Tensor, Tensor | None]


class Unroll(Protocol):
    """Built with a loss; see `Exact`."""

    def __call__(self, descent: Descent, start: Tensor, images: Tensor, rate: Tensor) -> Tensor:
        """θ_M ``[P]`` from θ_0 = `start` ``[P]``, S = `images` ``[n, …]`` and the scalar η ≥ 0."""


class Plain:
    """The inner loop with every step's graph kept: simple, and memory grows with M."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def __call__(self, descent: Descent, start: Tensor, images: Tensor, rate: Tensor) -> Tensor:
        _check(rate)
        theta = start if start.requires_grad else start.detach().requires_grad_()
        velocity: Tensor | None = None
        for step in range(descent.steps):
            loss = self.loss(theta, *descent.batch(images, step))
            (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
            velocity = descent.velocity(velocity, gradient)
            theta = theta - rate * velocity
        return theta


class Exact:
    """The inner loop with an exact gradient that holds one step's graph.

    The backward pass walks the steps in reverse with the adjoints λ of θ and w of ∂L/∂θ,

        w     ← λ + μ w
        ∂D/∂η ← ∂D/∂η − ⟨∂L/∂θ, w⟩
        ∂D/∂S ← ∂D/∂S − η · (∂²L/∂S∂θ) w
        λ     ← λ − η · (∂²L/∂θ²) w

    which is the chain rule of `Plain` term by term: heavy-ball descent has heavy-ball descent as
    its adjoint, so that momentum costs no further state. θ_M is differentiable once, with
    respect to the start, the images and the rate.

    Args:
        loss: L, built from one network.
        microbatch: images differentiated at once, null for all: less memory, the same result.
            A loss whose images influence each other (batch norm) is always taken whole.
        keep_every: keep every so-many-th state; the walk back recomputes the others, a stretch
            at a time. 1 keeps all; √M keeps least.
        offload: keep states in host memory.
        compile: torch.compile's mode, null for eager; see `Compiled`.
    """

    def __init__(
        self,
        loss: Loss,
        *,
        microbatch: int | None,
        keep_every: int,
        offload: bool,
        compile: str | None,
    ) -> None:
        if keep_every < 1:
            raise ValueError(f"unroll.keep_every is {keep_every}: give 1 (all states) or more")
        whole: Derivatives = Eager(loss) if compile is None else Compiled(loss, mode=compile)
        self.derivatives = whole
        if microbatch is not None and getattr(loss, "separable", True):
            self.derivatives = InParts(whole, microbatch)
        self.keep_every, self.offload = keep_every, offload

    def __call__(self, descent: Descent, start: Tensor, images: Tensor, rate: Tensor) -> Tensor:
        _check(rate)
        reached: Tensor = _Exact.apply(self, descent, start, images, rate)
        return reached

    def keep(self, state: State) -> State:
        theta, velocity = state
        if not self.offload:
            return state
        return theta.cpu(), None if velocity is None else velocity.cpu()

    def fetch(self, state: State, device: torch.device) -> State:
        theta, velocity = state
        return theta.to(device), None if velocity is None else velocity.to(device)


class _Exact(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, how: Exact, descent: Descent, start: Tensor, images: Tensor, rate: Tensor
    ) -> Tensor:
        images, rate = images.detach(), rate.detach()
        kept: list[State] = []
        # θ_0 itself may not be returned from a Function as if it were new.
        first: State = (start.detach().clone(), None)
        states = descent.states(how.derivatives, first, images, rate, range(descent.steps))
        for step, state in enumerate(states):
            if step < descent.steps and step % how.keep_every == 0:
                kept.append(how.keep(state))
        ctx.how, ctx.descent, ctx.kept = how, descent, kept
        ctx.autocast = _autocast_of(images)
        ctx.save_for_backward(images, rate)
        return state[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Tensor | None, ...]:
        how, descent = ctx.how, ctx.descent
        images, rate = ctx.saved_tensors
        images_gradient, rate_gradient = torch.zeros_like(images), torch.zeros_like(rate)
        direction = torch.zeros_like(adjoint)
        with ctx.autocast:
            for step, theta in _backwards(how, descent, ctx.kept, images, rate):
                direction = adjoint + descent.momentum * direction
                leaf = images.detach().requires_grad_()
                with torch.enable_grad():
                    batch, labels = descent.batch(leaf, step)
                found = how.derivatives.products(theta, batch.detach(), labels, direction)
                # The batch's own derivative is taken once: grid_sample has no second.
                (mixed,) = torch.autograd.grad(batch, leaf, found.mixed)
                rate_gradient -= found.slope
                images_gradient -= rate * mixed
                adjoint = adjoint - rate * found.hessian
        return None, None, adjoint, images_gradient, rate_gradient


def _backwards(
    how: Exact, descent: Descent, kept: list[State], images: Tensor, rate: Tensor
) -> Iterator[tuple[int, Tensor]]:
    """Each step and its θ_m, the last first; what was not kept is recomputed by stretches."""
    for index in reversed(range(len(kept))):
        begin = index * how.keep_every
        steps = range(begin, min(begin + how.keep_every, descent.steps))
        state = how.fetch(kept[index], images.device)
        stretch = descent.states(how.derivatives, state, images, rate, steps[:-1])
        thetas = [theta for theta, _ in stretch]
        for step in reversed(steps):
            yield step, thetas.pop()


def _check(rate: Tensor) -> None:
    if rate.dim() != 0:
        raise ValueError(f"the inner rate is one scalar, not a tensor of shape {tuple(rate.shape)}")


def _autocast_of(images: Tensor) -> torch.autocast:
    """The autocast in force, for the backward pass, which runs outside of it."""
    device = images.device.type
    return torch.autocast(
        device,
        dtype=torch.get_autocast_dtype(device),
        enabled=torch.is_autocast_enabled(device),
        cache_enabled=False,
    )
