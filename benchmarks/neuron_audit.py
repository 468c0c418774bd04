"""The audit of all neurons, compared with its forward passes alone.

    uv run benchmarks/neuron_audit.py            ResNet-18, 256 images of 3x32x32
    uv run benchmarks/neuron_audit.py --full     10,000 images, as in CIFAR-10's test set; for a GPU

The channels of all convolutions are read, after the non-linearity that follows them. Each variant
alternates with forward passes of the same images in its own process, so that other load affects
both alike. The last column is the fraction of top images equal to those of a sort of all
activations.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir

import harness
import torch
from torch import Tensor, nn

from cwx.cli.allocator import keep_freed_memory
from cwx.evaluations.neurons.top_images import Audit, audit_layers, normalized_batches
from cwx.functional.images import Normalization
from cwx.functional.top_activations import spatial_maximum
from cwx.networks.resnet import ResNet, basic_block
from cwx.networks.unit_outputs import unit_outputs

FRACTION, BATCH, FEW, MANY = 0.01, 128, 256, 10_000
NORMALIZATION = Normalization(mean=(0.5,) * 3, std=(0.5,) * 3)
Indices = dict[str, Tensor]


class Problem:
    """A network and images as bytes."""

    def __init__(self, count: int) -> None:
        torch.manual_seed(0)
        network = ResNet(
            stages=[2, 2, 2, 2],
            block=basic_block,
            width=64,
            norm=nn.BatchNorm2d,
            in_channels=3,
            image_size=(32, 32),
            num_classes=10,
        )
        self.network = network.to(harness.device()).eval().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)
        self.images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
        self.layers = audit_layers(self.network, (3, 32, 32), None, "layers")

    def batches(self):
        return normalized_batches([self.images], NORMALIZATION, size=BATCH, device=harness.device())


def forward(problem: Problem) -> None:
    with torch.no_grad():
        for _, images in problem.batches():
            problem.network(images)


def audit(problem: Problem) -> Indices:
    run = Audit(layers=problem.layers, activation=spatial_maximum, fraction=FRACTION)
    tops = run(problem.network, problem.batches(), len(problem.images))
    return {name: top.indices for name, top in tops.items()}


def sort_everything(problem: Problem) -> Indices:
    """Store the activations of all images, then sort them."""
    activations: dict[str, list[Tensor]] = {layer.name: [] for layer in problem.layers}
    with torch.no_grad(), unit_outputs(problem.network, problem.layers, spatial_maximum) as read:
        for _, images in problem.batches():
            for name, values in read(images).items():
                activations[name].append(values)
    k = round(FRACTION * len(problem.images))
    return {
        name: torch.cat(parts).sort(dim=0, descending=True, stable=True).indices[:k].cpu()
        for name, parts in activations.items()
    }


SORT = "sort of all activations"
# The reference comes first.
VARIANTS: dict[str, Callable[[Problem], Indices]] = {SORT: sort_everything, "audit": audit}


def reference_file() -> Path:
    return Path(gettempdir()) / f"cwx-neuron-audit-{harness.device().type}.pt"


def measure_variant(name: str, args: argparse.Namespace) -> dict[str, float]:
    keep_freed_memory()
    problem = Problem(MANY if args.full else FEW)
    run = VARIANTS[name]
    turns = [
        [harness.measure(lambda of=of: of(problem), repeats=1) for of in (forward, run)]
        for _ in range(args.repeats)
    ]
    indices = run(problem)
    if name == SORT:
        torch.save(indices, reference_file())
    expected = torch.load(reference_file(), weights_only=True)
    same = torch.cat([(indices[layer] == expected[layer]).flatten() for layer in expected])
    seconds = [own["seconds"] for _, own in turns]
    return {
        "milliseconds": 1000 * statistics.median(seconds) / len(problem.images),
        "ratio": statistics.median(own["seconds"] / bare["seconds"] for bare, own in turns),
        "MiB": max(own["MiB"] for _, own in turns),
        "same": same.double().mean().item(),
    }


def main() -> None:
    args = harness.arguments(__doc__.splitlines()[0]).parse_args()
    if args.variant:
        harness.report(measure_variant(args.variant, args))
        return
    reports = harness.in_processes(__file__, list(VARIANTS), args)
    rows: list[list[harness.Cell]] = [
        [name, values, None, None, None]
        if isinstance(values, str)
        else [name, *(values[key] for key in ("milliseconds", "ratio", "MiB", "same"))]
        for name, values in reports.items()
    ]
    print(f"ResNet-18, {MANY if args.full else FEW} images of 3x32x32")
    print(harness.machine() + "\n")
    harness.table(["", "ms an image", "of forward passes", "MiB", "same images"], rows)


if __name__ == "__main__":
    main()
