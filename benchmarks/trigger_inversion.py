"""Trigger inversion for 10, 20 and 43 classes: is the time linear in the number of classes?

    uv run benchmarks/trigger_inversion.py             ResNet-18 with 8 filters, five steps
    uv run benchmarks/trigger_inversion.py --full      ResNet-18 with 64 filters, for a GPU

Every step takes 16 images of 3x32x32 for each class, as ``method=[trigger_inversion]`` does. The
column with the ratio compares the time of a step and a class with that for 10 classes.
"""

import argparse

import harness
import torch

from cwx.cli.allocator import keep_freed_memory
from cwx.functional.images import Normalization
from cwx.functional.trigger_inversion import inversion_gradients
from cwx.networks.resnet import ResNet, basic_block

BATCH, STEPS = 16, 5
CLASSES = (10, 20, 43)
# Searches per forward pass.
CHUNKS = {"together": None, "ten at once": 10}
NORMALIZATION = Normalization(mean=(0.5,) * 3, std=(0.5,) * 3)


def variants() -> dict[str, tuple[int, int | None]]:
    return {
        f"{classes} classes, {name}": (classes, chunk)
        for name, chunk in CHUNKS.items()
        for classes in CLASSES
    }


def search(network: torch.nn.Module, classes: int, chunk: int | None) -> None:
    """The gradients of a few steps, whose results do not matter here."""
    device = harness.device()
    logits = torch.randn(classes, 4, 32, 32, device=device)
    images = torch.rand(classes, BATCH, 3, 32, 32, device=device)
    noise = torch.randn(classes, BATCH, 4, 32, 32, device=device)
    labels = torch.arange(classes, device=device)
    for _ in range(STEPS):
        for part in torch.arange(classes, device=device).split(chunk or classes):
            inversion_gradients(
                network,
                logits[part],
                images[part],
                labels[part],
                torch.ones(len(part), BATCH, device=device),
                torch.ones(len(part), device=device),
                noise[part],
                normalization=NORMALIZATION,
            )


def measure_variant(name: str, args: argparse.Namespace) -> dict[str, float]:
    keep_freed_memory()
    classes, chunk = variants()[name]
    torch.manual_seed(0)
    network = ResNet(
        stages=[2, 2, 2, 2],
        block=basic_block,
        width=64 if args.full else 8,
        norm=torch.nn.BatchNorm2d,
        in_channels=3,
        image_size=(32, 32),
        num_classes=classes,
    )
    network = network.to(harness.device()).eval().requires_grad_(False)
    return harness.measure(lambda: search(network, classes, chunk), repeats=args.repeats)


def main() -> None:
    args = harness.arguments(__doc__.splitlines()[0]).parse_args()
    if args.variant:
        harness.report(measure_variant(args.variant, args))
        return
    reports = harness.in_processes(__file__, list(variants()), args)
    rows: list[list[harness.Cell]] = []
    base: float | None = None
    for name, values in reports.items():
        if isinstance(values, str):
            rows.append([name, values, None, None])
            continue
        each = 1000 * values["seconds"] / (STEPS * variants()[name][0])
        if name.startswith(f"{CLASSES[0]} classes"):
            base = each
        rows.append([name, each, each / base if base else None, values["MiB"]])
    print(f"{STEPS} steps of {BATCH} images of 3x32x32 a class")
    print(harness.machine() + "\n")
    harness.table(["", "ms a step and class", "ratio", "peak MiB"], rows)


if __name__ == "__main__":
    main()
