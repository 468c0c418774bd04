"""Streamed images: time beside a bare torchvision loop on the same files, and memory.

    uv run benchmarks/streaming.py --images 50000 --folder /tmp/streamed

Generates JPEG files of 64x64 pixels in `--folder` if they are missing. Times an epoch of training
without a network (the batches alone) and with one, and the audit of neurons beside bare forward
passes. Both variants alternate within one process; the last line of each gives the ratio. Memory is
the proportional share (PSS) of this process and its workers, so that shared memory counts once.
"""

import argparse
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median

import torch
from generated_images import CLASSES, SIDE, generate, proportional_memory
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder as TorchvisionFolder
from torchvision.transforms import v2

from cwx.data.datamodule import ImageData
from cwx.data.datasets.folders import ImageFolder
from cwx.data.samples import class_means
from cwx.evaluations.neurons.top_images import Audit, normalized_batches
from cwx.functional.top_activations import spatial_maximum
from cwx.networks.convnet import ConvNet, instance_norm

BATCH = 256
TRANSFORM = v2.Compose(
    [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
)


class Memory:
    """Samples the PSS of this process and its children in a thread."""

    def __init__(self) -> None:
        self.peak = 0.0
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while True:
            self.peak = max(self.peak, self.now())
            time.sleep(0.5)

    @staticmethod
    def now() -> float:
        """In MB."""
        return proportional_memory(os.getpid())


def network() -> nn.Module:
    shape = {"in_channels": 3, "image_size": (SIDE, SIDE), "num_classes": len(CLASSES)}
    return ConvNet(**shape, depth=3, width=16, norm=instance_norm)


def bare_batches(root: Path, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
    data = TorchvisionFolder(root / "train", transform=TRANSFORM)
    return DataLoader(
        data, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )


def streamed_batches(
    data: ImageData, loader: DataLoader[object]
) -> Iterator[tuple[Tensor, Tensor]]:
    for step in loader:
        (batch,) = data.on_after_batch_transfer(step, 0)
        yield batch.images, batch.labels


def train(batches: Iterable[tuple[Tensor, Tensor]], model: nn.Module | None) -> None:
    optimizer = None if model is None else torch.optim.SGD(model.parameters(), lr=0.01)
    for images, labels in batches:
        if model is not None and optimizer is not None:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()


@torch.no_grad()
def bare_passes(model: nn.Module, root: Path, workers: int) -> None:
    data = TorchvisionFolder(root / "test", transform=TRANSFORM)
    for images, _ in DataLoader(data, BATCH, num_workers=workers):
        model(images)


def audit(model: nn.Module, data: ImageData) -> None:
    layers = [name for name, part in model.named_modules() if isinstance(part, nn.Conv2d)]
    test = data.splits.test.images
    batches = normalized_batches([test], data.normalization, size=BATCH, device=torch.device("cpu"))
    Audit(layers=layers, activation=spatial_maximum, fraction=0.01)(model, batches, len(test))


def compare(name: str, bare: Callable[[], None], ours: Callable[[], None], rounds: int) -> None:
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for run, seconds in zip((bare, ours), times, strict=True):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
    first, second = map(median, times)
    print(
        f"{name}: bare {first:.1f} s, streamed {second:.1f} s, {second / first:.2f} times as long"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--without-training", action="store_true", help="measure batches alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    root = generate(options.folder, options.images)
    memory = Memory()
    print(f"{options.images} images, {options.workers} workers; at start {memory.now():.0f} MB")
    start = time.perf_counter()
    source = ImageFolder(
        root=str(root),
        size=None,
        **dict.fromkeys(
            ("resize", "interpolation", "channels", "background", "white_level", "synsets")
        ),
    )
    data = ImageData(
        source=source,
        mean=0.5,
        std=0.5,
        batch_size=BATCH,
        per_class=None,
        storage="disk",
        workers=options.workers,
        manifests=str(options.folder / "manifests"),
    )
    data.setup()
    print(f"listed in {time.perf_counter() - start:.1f} s, then {memory.now():.0f} MB")
    loader = data.batches(size=BATCH, seeds=[0]).train_dataloader()
    bare_loader = bare_batches(root, options.workers)
    measured = {"batches alone": lambda: None, "an epoch of training": network}
    if options.without_training:
        del measured["an epoch of training"]
    for name, factory in measured.items():
        compare(
            name,
            lambda factory=factory: train(bare_loader, factory()),
            lambda factory=factory: train(streamed_batches(data, loader), factory()),
            options.rounds,
        )
        print(f"peak so far {memory.peak:.0f} MB")
    model = network().eval()
    compare(
        "audit of the test images, and bare forward passes",
        lambda: bare_passes(model, root, options.workers),
        lambda: audit(model, data),
        options.rounds,
    )
    class_means(data.splits.train)
    print(f"peak with the means of all classes {memory.peak:.0f} MB")


if __name__ == "__main__":
    main()
