"""Inner-loop gradient descent as one differentiable operation (CWX, Eq 2-5).

Both functions compute the same map ``(θ_0, S, η) ↦ θ_M`` with

    θ_{m+1} = θ_m − η · ∂L(θ_m, S)/∂θ,    m = 0 … M−1

and differ only in what they keep for the backward pass: `unroll_plain` all M graphs,
`unroll` the states θ_0 … θ_M and one step's graph at a time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Parameters = tuple[Tensor, ...]
Loss = Callable[[Parameters, Tensor], Tensor]
Unroll = Callable[[Loss, Sequence[Tensor], Tensor, Tensor, int], Parameters]


def unroll_plain(
    loss: Loss, start: Sequence[Tensor], images: Tensor, rate: Tensor, steps: int
) -> Parameters:
    """Unroll the inner loop with every step's graph kept: simple, and memory grows with `steps`.

    Arguments and result are those of `unroll`.
    """
    _check(rate, steps)
    parameters = tuple(p if p.requires_grad else p.detach().requires_grad_() for p in start)
    for _ in range(steps):
        gradients = torch.autograd.grad(loss(parameters, images), parameters, create_graph=True)
        parameters = tuple(p - rate * g for p, g in zip(parameters, gradients, strict=True))
    return parameters


def unroll(
    loss: Loss, start: Sequence[Tensor], images: Tensor, rate: Tensor, steps: int
) -> Parameters:
    """Unroll the inner loop with an exact gradient that holds one step's graph.

    The backward pass walks the steps in reverse with the adjoint λ = ∂D/∂θ_m:

        ∂D/∂S ← ∂D/∂S − η · (∂²L/∂S∂θ) λ
        ∂D/∂η ← ∂D/∂η − ⟨∂L/∂θ, λ⟩
        λ     ← λ − η · (∂²L/∂θ²) λ

    which is the chain rule of `unroll_plain` term by term.

    Args:
        loss: ``loss(parameters, images)``, the scalar L; a pure function, twice differentiable.
        start: θ_0, one tensor a parameter.
        images: S, in whatever shape `loss` takes.
        rate: η, a scalar tensor ≥ 0.
        steps: M ≥ 0.

    Returns:
        θ_M, differentiable once with respect to `start`, `images` and `rate`.

    Raises:
        ValueError: `rate` is not a scalar or `steps` is negative.
    """
    _check(rate, steps)
    return _Unroll.apply(loss, steps, images, rate, *start)  # type: ignore[no-any-return]


def _check(rate: Tensor, steps: int) -> None:
    if rate.dim() != 0:
        raise ValueError(f"the inner rate is one scalar, not a tensor of shape {tuple(rate.shape)}")
    if steps < 0:
        raise ValueError(f"the number of inner steps is {steps}: give 0 or more")


def _leaves(tensors: Sequence[Tensor]) -> Parameters:
    return tuple(t.detach().requires_grad_() for t in tensors)


class _Unroll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, loss: Loss, steps: int, images: Tensor, rate: Tensor, *start: Tensor
    ) -> Parameters:
        ctx.loss = loss
        images, rate = images.detach(), rate.detach()
        # A step creates new tensors, so the states are never views of live weights.
        states = [tuple(p.detach() for p in start)]
        for _ in range(steps):
            parameters = _leaves(states[-1])
            with torch.enable_grad():
                gradients = torch.autograd.grad(loss(parameters, images), parameters)
            states.append(tuple(p - rate * g for p, g in zip(states[-1], gradients, strict=True)))
        ctx.states = states[:-1]
        ctx.save_for_backward(images, rate)
        # θ_0 itself may not be returned from a Function as if it were new.
        return states[-1] if steps else tuple(p.clone() for p in states[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *adjoint: Tensor) -> tuple[Tensor | None, ...]:
        images, rate = ctx.saved_tensors
        images_gradient = torch.zeros_like(images)
        rate_gradient = torch.zeros_like(rate)
        for state in reversed(ctx.states):
            gradients, hessian, mixed = _products(ctx.loss, state, images, adjoint)
            rate_gradient -= _inner(gradients, adjoint)
            images_gradient -= rate * mixed
            adjoint = tuple(a - rate * h for a, h in zip(adjoint, hessian, strict=True))
        return None, None, images_gradient, rate_gradient, *adjoint


def _products(
    loss: Loss, state: Parameters, images: Tensor, adjoint: Parameters
) -> tuple[Parameters, Parameters, Tensor]:
    """∂L/∂θ, (∂²L/∂θ²)λ and (∂²L/∂S∂θ)λ at one state, reverse over reverse."""
    parameters, (inputs,) = _leaves(state), _leaves([images])
    with torch.enable_grad():
        value = loss(parameters, inputs)
        gradients = torch.autograd.grad(value, parameters, create_graph=True)
        products = torch.autograd.grad(
            _inner(gradients, adjoint),
            (*parameters, inputs),
            allow_unused=True,
            materialize_grads=True,
        )
    return tuple(g.detach() for g in gradients), products[:-1], products[-1]


def _inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()
