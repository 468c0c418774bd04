"""The audit of all neurons against the forward passes that it cannot do without.

    uv run benchmarks/neuron_audit.py            ResNet-18, 512 images of 3x32x32
    uv run benchmarks/neuron_audit.py --full     10,000 images, CIFAR-10's test set; for a GPU

Every variant takes the same images through the same network, the channels of all convolutions
read behind their normalisation; the last column is the share of top images that equal those of
a sort of everything.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir

import harness
import torch
from torch import Tensor, nn

from cwx.allocator import keep_freed_memory
from cwx.audit import Audit, normalised, read_layers
from cwx.functional.images import Normalization
from cwx.functional.neurons import spatial_maximum
from cwx.networks.layers import layer_outputs
from cwx.networks.resnet import ResNet, basic_block

SHARE, BATCH = 0.01, 128
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
        self.layers = read_layers(self.network, (3, 32, 32), None, "layers")

    def batches(self):
        return normalised([self.images], NORMALIZATION, size=BATCH, device=harness.device())


def forward(problem: Problem) -> Indices:
    with torch.no_grad():
        for images in problem.batches():
            problem.network(images)
    return {}


def audit(problem: Problem) -> Indices:
    find = Audit(layers=problem.layers, activation=spatial_maximum, share=SHARE)
    found = find(problem.network, problem.batches(), len(problem.images))
    return {name: top.indices for name, top in found.items()}


def sort_everything(problem: Problem) -> Indices:
    """Keep the activations of all images."""
    kept: dict[str, list[Tensor]] = {name: [] for name in problem.layers}
    with torch.no_grad(), layer_outputs(problem.network, problem.layers, spatial_maximum) as read:
        for images in problem.batches():
            for name, activations in read(images).items():
                kept[name].append(activations)
    k = round(SHARE * len(problem.images))
    return {
        name: torch.cat(parts).sort(dim=0, descending=True, stable=True).indices[:k].cpu()
        for name, parts in kept.items()
    }


SORT, FORWARD = "sort of all activations", "forward passes"
# What others are held against first.
VARIANTS: dict[str, Callable[[Problem], Indices]] = {
    SORT: sort_everything,
    FORWARD: forward,
    "audit": audit,
}


def reference_file() -> Path:
    return Path(gettempdir()) / f"cwx-neuron-audit-{harness.device().type}.pt"


def measured(name: str, given: argparse.Namespace) -> dict[str, float]:
    keep_freed_memory()
    problem = Problem(10_000 if given.full else 512)
    run = VARIANTS[name]
    values = harness.measure(lambda: run(problem), repeats=given.repeats)
    found = run(problem)
    if name == SORT:
        torch.save(found, reference_file())
    values["milliseconds an image"] = 1000 * values["seconds"] / len(problem.images)
    if found:
        expected = torch.load(reference_file(), weights_only=True)
        same = [(found[layer] == expected[layer]).flatten() for layer in expected]
        values["same"] = torch.cat(same).double().mean().item()
    return values


def main() -> None:
    given = harness.arguments(__doc__.splitlines()[0]).parse_args()
    if given.variant:
        harness.report(measured(given.variant, given))
        return
    found = harness.in_processes(__file__, list(VARIANTS), given)
    base = found.get(FORWARD)
    rows: list[list[harness.Cell]] = []
    for name, values in found.items():
        if isinstance(values, str):
            rows.append([name, values, None, None, None])
            continue
        ratio = values["seconds"] / base["seconds"] if isinstance(base, dict) else None
        image, same = values["milliseconds an image"], values.get("same")
        rows.append([name, image, ratio, values["MiB"], same])
    print(f"ResNet-18, {10_000 if given.full else 512} images of 3x32x32")
    print(harness.machine() + "\n")
    harness.table(["", "ms an image", "forward passes", "peak MiB", "same images"], rows)


if __name__ == "__main__":
    main()
