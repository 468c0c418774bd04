"""Inner-loop gradient descent as one differentiable operation (CWX, Eq 2-5).

`Plain` and `Exact` compute the same map (θ_0, S, η) ↦ θ_M with

    v_{m+1} = μ v_m + ∂L(θ_m, batch_m(S))/∂θ,    v_0 = 0
    θ_{m+1} = θ_m − η v_{m+1},                   m = 0 … M−1

They differ in memory for the backward pass: `Plain` stores all M graphs; `Exact` stores all or some
of the states θ_0 … θ_{M−1}, and one step's graph at a time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cwx.functional.loss_derivatives import (
    Compiled,
    Derivatives,
    Eager,
    Graphs,
    Loss,
    Microbatches,
)

# From all images S and a step to the step's images and labels. Once differentiable in S, and
# deterministic, because the backward pass calls it again.
BatchFunction = Callable[[Tensor, int], tuple[Tensor, Tensor]]


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
    batch: BatchFunction

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"the number of inner steps is {self.steps}: give 0 or more")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"the inner momentum is {self.momentum}: give 0 or more, below 1")

    def states(
        self, derivatives: Derivatives, state: "State", images: Tensor, rate: Tensor, steps: range
    ) -> Iterator["State"]:
        """The state before each of `steps`, and that after the last one; without graphs."""
        yield state
        for step in steps:
            gradient = derivatives.gradient(state[0], *self.batch(images, step))
            state = self.advance(state, gradient, rate)
            yield state

    def advance(self, state: "State", gradient: Tensor, rate: Tensor) -> "State":
        """The state after a step with the gradient at θ_m."""
        theta, velocity = state
        velocity = self.velocity(velocity, gradient)
        # Without momentum, the next step does not need the velocity.
        return theta - rate * velocity, velocity if self.momentum else None

    def reach(
        self, derivatives: Derivatives, start: Tensor, images: Tensor, rate: Tensor
    ) -> Tensor:
        """θ_M, without a graph and without stored states."""
        for theta, _ in self.states(derivatives, (start, None), images, rate, range(self.steps)):
            reached = theta
        return reached

    def velocity(self, velocity: Tensor | None, gradient: Tensor) -> Tensor:
        """v_{m+1} from v_m (none before the first step) and the gradient at θ_m."""
        return gradient if velocity is None else self.momentum * velocity + gradient


# θ_m and v_m.
State = tuple[Tensor, Tensor | None]


class Unroll(Protocol):
    """A differentiable inner loop for one loss; see `Exact`."""

    def __call__(self, descent: Descent, start: Tensor, images: Tensor, rate: Tensor) -> Tensor:
        """θ_M ``[P]`` from θ_0 = `start` ``[P]``, S = `images` ``[n, …]`` and the scalar η ≥ 0."""


class Plain:
    """The inner loop with the graphs of all steps: simple, but memory grows with M."""

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
    """The inner loop with an exact gradient and the graph of one step at a time.

    The backward pass runs through the steps in reverse, with the adjoints λ of θ and w of ∂L/∂θ:

        w     ← λ + μ w
        ∂D/∂η ← ∂D/∂η − ⟨∂L/∂θ, w⟩
        ∂D/∂S ← ∂D/∂S − η · (∂²L/∂S∂θ) w
        λ     ← λ − η · (∂²L/∂θ²) w

    This is the chain rule of `Plain`, term by term. The adjoint of heavy-ball descent is heavy-ball
    descent again, so momentum needs no additional stored state. θ_M is once differentiable with
    respect to the start, the images and the learning rate.

    Args:
        loss: L of one network.
        microbatch: images per derivative computation, for less memory and the same result; null:
            all. Ignored for a loss whose images influence each other (batch norm).
        keep_every: the number of steps from one stored state to the next; the backward pass
            recomputes the states between. 1 stores all states; √M needs the least memory.
        offload: store states in host memory.
        compile: the mode of torch.compile, null for eager; see `Compiled`.
        memory: GB (10⁹ bytes) for the graphs of the last steps, whose loss is then not computed a
            second time; null keeps no graph. Without `microbatch`, `compile` and `offload`.

    Raises:
        ValueError: a setting is out of range, or excludes another.
    """

    def __init__(
        self,
        loss: Loss,
        *,
        microbatch: Annotated[int, ">= 1"] | None,
        keep_every: Annotated[int, ">= 1"],
        offload: bool,
        compile: str | None,
        memory: Annotated[float, "> 0"] | None,
    ) -> None:
        if memory is not None:
            _check_alone(memory, microbatch=microbatch, compile=compile, offload=offload or None)
        if keep_every < 1:
            raise ValueError(f"unroll.keep_every is {keep_every}: give 1 (all states) or more")
        self.eager = Eager(loss)
        derivatives: Derivatives = self.eager if compile is None else Compiled(loss, mode=compile)
        if microbatch is not None and getattr(loss, "separable", True):
            derivatives = Microbatches(derivatives, microbatch)
        self.derivatives = derivatives
        self.keep_every, self.offload = keep_every, offload
        self.graphs = None if memory is None else Graphs(memory * 1e9, self.eager)

    def __call__(self, descent: Descent, start: Tensor, images: Tensor, rate: Tensor) -> Tensor:
        _check(rate)
        reached: Tensor = _Exact.apply(self, descent, start, images, rate)
        return reached

    def store(self, state: State) -> State:
        theta, velocity = state
        if not self.offload:
            return state
        return theta.cpu(), None if velocity is None else velocity.cpu()

    def load(self, state: State, device: torch.device) -> State:
        theta, velocity = state
        return theta.to(device), None if velocity is None else velocity.to(device)


class _Exact(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, unroll: Exact, descent: Descent, start: Tensor, images: Tensor, rate: Tensor
    ) -> Tensor:
        images, rate = images.detach(), rate.detach()
        stored: list[State] = []
        # A Function must not return its input as a new tensor, hence the copy.
        first: State = (start.detach().clone(), None)
        split = descent.steps
        if unroll.graphs is not None and descent.steps:
            split -= min(unroll.graphs.count(first[0], *descent.batch(images, 0)), split)
        state = first
        states = descent.states(unroll.derivatives, first, images, rate, range(split))
        for step, state in enumerate(states):
            if step < split and step % unroll.keep_every == 0:
                stored.append(unroll.store(state))
        linearisations = []
        for step in range(split, descent.steps):
            linearisation = unroll.eager.linearise(state[0], *descent.batch(images, step))
            state = descent.advance(state, linearisation.gradient, rate)
            linearisations.append(linearisation.products)
        ctx.unroll, ctx.descent, ctx.stored, ctx.split = unroll, descent, stored, split
        ctx.linearisations = linearisations
        ctx.autocast = _current_autocast(images)
        ctx.save_for_backward(images, rate)
        return state[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Tensor | None, ...]:
        unroll, descent = ctx.unroll, ctx.descent
        images, rate = ctx.saved_tensors
        images_gradient, rate_gradient = torch.zeros_like(images), torch.zeros_like(rate)
        direction = torch.zeros_like(adjoint)
        with ctx.autocast:
            for step, theta in _reverse_states(ctx, images, rate):
                direction = adjoint + descent.momentum * direction
                leaf = images.detach().requires_grad_()
                with torch.enable_grad():
                    batch, labels = descent.batch(leaf, step)
                products = (
                    ctx.linearisations.pop()(direction)
                    if theta is None
                    else unroll.derivatives.products(theta, batch.detach(), labels, direction)
                )
                # First derivative of the batch only: grid_sample has no second derivative.
                (mixed,) = torch.autograd.grad(batch, leaf, products.mixed)
                rate_gradient -= products.slope
                images_gradient -= rate * mixed
                adjoint = adjoint - rate * products.hessian
        return None, None, adjoint, images_gradient, rate_gradient


def _reverse_states(ctx: Any, images: Tensor, rate: Tensor) -> Iterator[tuple[int, Tensor | None]]:
    """(m, θ_m) from the last step to the first; states between stored ones are recomputed.

    A step whose graph is kept has no state.
    """
    unroll, descent = ctx.unroll, ctx.descent
    for step in reversed(range(ctx.split, descent.steps)):
        yield step, None
    for index in reversed(range(len(ctx.stored))):
        begin = index * unroll.keep_every
        steps = range(begin, min(begin + unroll.keep_every, ctx.split))
        state = unroll.load(ctx.stored[index], images.device)
        segment = descent.states(unroll.derivatives, state, images, rate, steps[:-1])
        thetas = [theta for theta, _ in segment]
        for step in reversed(steps):
            yield step, thetas.pop()


def _check_alone(memory: float, **others: Any) -> None:
    if memory <= 0:
        raise ValueError(f"unroll.memory is {memory}: give GB above 0, or null to keep no graph")
    for name, value in others.items():
        if value is not None:
            raise ValueError(
                f"unroll.memory={memory} keeps graphs, which unroll.{name}={value} excludes: set "
                "one of them to null"
            )


def _check(rate: Tensor) -> None:
    if rate.dim() != 0:
        raise ValueError(
            f"the inner learning rate must be one scalar, not a tensor of shape {tuple(rate.shape)}"
        )


def _current_autocast(images: Tensor) -> torch.autocast:
    """The active autocast, for the backward pass, which runs outside of it."""
    device = images.device.type
    return torch.autocast(
        device,
        dtype=torch.get_autocast_dtype(device),
        enabled=torch.is_autocast_enabled(device),
        cache_enabled=False,
    )
