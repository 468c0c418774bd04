"""One outer iteration of the distillation: time, peak memory and error of each unroll.

    uv run benchmarks/distill_step.py            on a CPU: ConvNet 3x128, 100 images, M = 10
    uv run benchmarks/distill_step.py --full     M = 60, for a GPU

The error is the relative error of ∂D/∂S; the reference is the exact gradient in double precision.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import harness
import torch
from torch import Tensor

from cwx.cli.allocator import keep_freed_memory
from cwx.functional.loss_derivatives import Eager
from cwx.functional.network_loss import NetworkLoss
from cwx.functional.trajectory_distance import normalised_distance
from cwx.functional.unroll import Descent, Exact, Plain
from cwx.networks.convnet import ConvNet, instance_norm

CLASSES, PER_CLASS, LEARNING_RATE = 10, 10, 0.02


class Problem:
    """θ_k, θ_{k+N}, S with labels, and the loss, with the shapes of CIFAR-10."""

    def __init__(
        self, dtype: torch.dtype, steps: int, per_class: int = PER_CLASS, width: int = 128
    ) -> None:
        device = harness.device()
        torch.manual_seed(0)
        network = ConvNet(
            in_channels=3,
            image_size=(32, 32),
            num_classes=CLASSES,
            depth=3,
            width=width,
            norm=instance_norm,
        )
        self.loss = NetworkLoss(network.to(device, dtype))
        self.start = self.loss.vector(dict(network.named_parameters())).detach()
        self.images = torch.randn(CLASSES * per_class, 3, 32, 32).to(device, dtype)
        self.labels = torch.arange(CLASSES, device=device).repeat_interleave(per_class)
        self.learning_rate = torch.tensor(LEARNING_RATE, device=device, dtype=dtype)
        other_images = torch.randn(200, 3, 32, 32).to(device, dtype)
        labels = torch.arange(CLASSES, device=device).repeat(20)
        # The end of training on other images from the same start.
        other_descent = Descent(steps=5, momentum=0.0, batch=lambda images, _: (images, labels))
        self.target = other_descent.reach(
            Eager(self.loss), self.start, other_images, self.learning_rate * 5
        )
        self.descent = Descent(
            steps=steps, momentum=0.0, batch=lambda images, _: (images, self.labels)
        )

    def gradient(self, unroll: Any) -> Tensor:
        images = self.images.clone().requires_grad_()
        reached = unroll(self.descent, self.start, images, self.learning_rate)
        distance = normalised_distance(self.start, reached, self.target)
        (gradient,) = torch.autograd.grad(distance, images)
        return gradient


class Truncated:
    """A common low-memory approximation: the adjoint of θ_M replaces that of every θ_m."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def gradient(self) -> Tensor:
        problem, derivatives = self.problem, Eager(self.problem.loss)
        every = range(problem.descent.steps)
        begin = (problem.start, None)
        states = problem.descent.states(
            derivatives, begin, problem.images, problem.learning_rate, every
        )
        thetas = [theta for theta, _ in states]
        last = thetas.pop().requires_grad_()
        distance = normalised_distance(problem.start, last, problem.target)
        (adjoint,) = torch.autograd.grad(distance, last)
        total = torch.zeros_like(problem.images)
        for theta in thetas:
            products = derivatives.products(theta, problem.images, problem.labels, adjoint)
            total -= problem.learning_rate * products.mixed
        return total


def exact(problem: Problem, **settings: Any) -> Callable[[], Tensor]:
    defaults = {
        "microbatch": None,
        "keep_every": 1,
        "offload": False,
        "compile": None,
        "memory": None,
    }
    unroll = Exact(problem.loss, **{**defaults, **settings})
    return lambda: problem.gradient(unroll)


def plain(problem: Problem) -> Callable[[], Tensor]:
    return lambda: problem.gradient(Plain(problem.loss))


def with_allocator(build: Callable[[Problem], Callable[[], Tensor]]) -> Callable[[Problem], Any]:
    def prepare(problem: Problem) -> Callable[[], Tensor]:
        keep_freed_memory()
        return build(problem)

    return prepare


def tf32(build: Callable[[Problem], Callable[[], Tensor]]) -> Callable[[Problem], Any]:
    def prepare(problem: Problem) -> Callable[[], Tensor]:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        return build(problem)

    return prepare


def bf16(build: Callable[[Problem], Callable[[], Tensor]]) -> Callable[[Problem], Any]:
    def prepare(problem: Problem) -> Callable[[], Tensor]:
        run = build(problem)

        def autocast() -> Tensor:
            with torch.autocast(harness.device().type, torch.bfloat16):
                return run()

        return autocast

    return prepare


ON_CPU: dict[str, Callable[[Problem], Callable[[], Tensor]]] = {
    "plain unroll": plain,
    "plain unroll, freed memory kept": with_allocator(plain),
    "truncated adjoint": with_allocator(lambda problem: Truncated(problem).gradient),
    "exact, eager": with_allocator(exact),
    "exact, eager, graphs of 8 GB kept": with_allocator(lambda p: exact(p, memory=8)),
    "exact, eager, 20 images at once": with_allocator(lambda p: exact(p, microbatch=20)),
    "exact, compiled, 20 images at once": with_allocator(
        lambda p: exact(p, microbatch=20, compile="default")
    ),
}
ON_GPU: dict[str, Callable[[Problem], Callable[[], Tensor]]] = {
    "plain unroll": plain,
    "truncated adjoint": lambda problem: Truncated(problem).gradient,
    "exact, eager": exact,
    "exact, compiled": lambda p: exact(p, compile="default"),
    "exact, CUDA graphs": lambda p: exact(p, compile="reduce-overhead"),
    "plain unroll, TF32": tf32(plain),
    "exact, compiled, TF32": tf32(lambda p: exact(p, compile="default")),
    "exact, CUDA graphs, TF32": tf32(lambda p: exact(p, compile="reduce-overhead")),
    "exact, compiled, bf16": bf16(lambda p: exact(p, compile="default")),
}


def variants() -> dict[str, Callable[[Problem], Callable[[], Tensor]]]:
    return ON_GPU if torch.cuda.is_available() else ON_CPU


def steps(args: argparse.Namespace) -> int:
    return 60 if args.full else 3 if args.toy else 10


def build_problem(dtype: torch.dtype, args: argparse.Namespace) -> Problem:
    return Problem(dtype, steps(args), **({"per_class": 2, "width": 8} if args.toy else {}))


def reference_file(args: argparse.Namespace) -> Path:
    return Path(gettempdir()) / f"cwx-distill-step-{steps(args)}-{harness.device().type}.pt"


def measure_variant(name: str, args: argparse.Namespace) -> dict[str, float]:
    problem = build_problem(torch.float32, args)
    run = variants()[name](problem)
    values = harness.measure(run, repeats=args.repeats)
    expected = torch.load(reference_file(args), weights_only=True)
    error = (run().cpu().double() - expected).norm() / expected.norm()
    return {**values, "error": error.item()}


def main() -> None:
    args = harness.arguments(__doc__.splitlines()[0], toy=True).parse_args()
    # Reference and variants use IEEE single precision.
    torch.backends.cudnn.allow_tf32 = False
    if args.variant:
        harness.report(measure_variant(args.variant, args))
        return
    reference = exact(build_problem(torch.float64, args), microbatch=20)()
    torch.save(reference.cpu(), reference_file(args))
    reports = harness.in_processes(__file__, list(variants()), args)
    base = reports.get("plain unroll")
    rows: list[list[harness.Cell]] = []
    for name, values in reports.items():
        if isinstance(values, str):
            rows.append([name, values, None, None, None, None])
            continue
        speed = memory = None
        if isinstance(base, dict):
            speed = base["seconds"] / values["seconds"]
            memory = base["MiB"] / values["MiB"] if values["MiB"] else None
        rows.append([name, values["seconds"], speed, values["MiB"], memory, values["error"]])
    sizes = "ConvNet 3x8, 20" if args.toy else f"ConvNet 3x128, {CLASSES * PER_CLASS}"
    print(f"{sizes} images of 3x32x32, M = {steps(args)}")
    print(harness.machine() + "\n")
    harness.table(
        ["", "s a step", "times as fast", "peak MiB", "times less", "error of ∂D/∂S"], rows
    )


if __name__ == "__main__":
    main()
