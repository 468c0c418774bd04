"""One epoch of expert training: a plain DataLoader loop and ours, for one seed and for eight.

    uv run benchmarks/expert_epoch.py            on a CPU: 2,048 images, and a small network too
    uv run benchmarks/expert_epoch.py --full     CIFAR-10's 50,000 images, for a GPU

Eight seeds train one after another, in parallel (`experts.at_once`), and, for comparison, stacked
under `vmap`.
"""

import logging
from collections.abc import Callable
from typing import Any

import harness
import lightning as L
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from cwx.cli.allocator import keep_freed_memory
from cwx.data.datamodule import ImageData
from cwx.data.splits import ImageSet, Splits
from cwx.functional.augmentation import Crop, Flip, Strategy
from cwx.methods.expert import Expert
from cwx.networks.convnet import ConvNet, instance_norm
from cwx.storage.recording import Recording
from cwx.training.objectives import CrossEntropy

LR, BATCH = 0.01, 256


class Generated:
    """Random bytes with the shapes of CIFAR-10; the learned content does not matter here."""

    def __init__(self, count: int) -> None:
        self.count = count

    def prepare(self) -> None:
        return

    def load(self) -> Splits:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (self.count, 3, 32, 32), generator=generator)
        images = images.to(torch.uint8)
        labels = torch.arange(self.count) % 10
        test = ImageSet(images[:20], labels[:20])
        return Splits(ImageSet(images, labels), test, tuple(map(str, range(10))))


def network(width: int) -> nn.Module:
    return ConvNet(
        in_channels=3, image_size=(32, 32), num_classes=10, depth=3, width=width, norm=instance_norm
    )


def data(count: int) -> ImageData:
    loaded = ImageData(
        source=Generated(count), mean=0.5, std=0.5, batch_size=512, per_class=None, total=None
    )
    loaded.setup()
    return loaded


class Single(Dataset[tuple[Tensor, int]]):
    """One image at a time, with torchvision's transforms."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images
        self.transform = v2.Compose(
            [
                v2.RandomCrop(32, padding=4),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * 3, [0.5] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images.images[index]), int(self.images.labels[index])


def plain(count: int, width: int, seeds: int) -> Callable[[], Any]:
    """A DataLoader with two workers and a training loop, one seed after another."""
    images = Single(data(count).splits.train)
    device = harness.device()

    def train_seed() -> None:
        model = network(width).to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        loader = DataLoader(
            images, BATCH, shuffle=True, num_workers=2, pin_memory=device.type == "cuda"
        )
        for batch, labels in loader:
            loss = F.cross_entropy(model(batch.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return lambda: [train_seed() for _ in range(seeds)]


def ours(
    count: int, width: int, seeds: int, *, at_once: int, precision: str, channels_last: bool
) -> Callable[[], Any]:
    keep_freed_memory()
    images = data(count)

    def train_seeds(seeds: list[int]) -> None:
        module = Expert(
            networks=[network(width) for _ in seeds],
            data=images,
            seeds=seeds,
            stages=[str(seed) for seed in seeds],
            epochs=1,
            batch_size=BATCH,
            augment=Strategy({"crop": Crop(shift=0.125), "flip": Flip(probability=0.5)}),
            attack=None,
            objective=CrossEntropy,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=LR),
            schedule=None,
            channels_last=channels_last,
            recording=Recording(epochs=None, dtype="float32"),
        )
        trainer = L.Trainer(
            max_epochs=1,
            devices=1,
            precision=precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=module.batches)

    groups = [list(range(seeds))[first : first + at_once] for first in range(0, seeds, at_once)]
    return lambda: [train_seeds(group) for group in groups]


def stacked(count: int, width: int, seeds: int) -> Callable[[], Any]:
    """All seeds as one network with stacked weights; no augmentation, no Lightning."""
    keep_freed_memory()
    device, images = harness.device(), data(count)
    base = network(width).to(device)

    def loss(weights: dict[str, Tensor], batch: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(base, weights, (batch,)), labels)

    step = vmap(grad(loss))

    def run() -> None:
        weights, _ = stack_module_state([network(width).to(device) for _ in range(seeds)])
        view = images.batches(size=BATCH, seeds=range(seeds))
        for batches in view.train_dataloader():
            inputs, labels = (
                torch.stack([batch[part] for batch in batches]).to(device) for part in (0, 1)
            )
            with torch.no_grad():
                gradients = step(weights, inputs, labels)
                weights = {name: w - LR * gradients[name] for name, w in weights.items()}

    return run


def ways(seeds: int) -> dict[str, Callable[[int, int], Callable[[], Any]]]:
    common: dict[str, Any] = {"precision": "32-true", "channels_last": False}
    fast: dict[str, Any] = {"precision": "bf16-mixed", "channels_last": True}
    variants: dict[str, Callable[[int, int], Callable[[], Any]]] = {
        "plain": lambda n, w: plain(n, w, seeds),
        "ours": lambda n, w: ours(n, w, seeds, at_once=1, **common),
    }
    if torch.cuda.is_available():
        variants["ours, channels_last, bf16"] = lambda n, w: ours(n, w, seeds, at_once=1, **fast)
    if seeds > 1:
        variants["ours, in parallel"] = lambda n, w: ours(n, w, seeds, at_once=seeds, **common)
        variants["stacked under vmap"] = lambda n, w: stacked(n, w, seeds)
    if seeds > 1 and torch.cuda.is_available():
        variants["ours, in parallel, channels_last, bf16"] = lambda n, w: ours(
            n, w, seeds, at_once=seeds, **fast
        )
    return variants


def sizes(full: bool) -> list[tuple[int, int]]:
    """Images and filters."""
    return [(50_000, 128)] if full else [(2_048, 128), (2_048, 16)]


def cases(full: bool) -> dict[str, Callable[[], Callable[[], Any]]]:
    return {
        f"{width} filters, {seeds} seed{'s' * (seeds > 1)}: {name}": (
            lambda build=build, count=count, width=width: build(count, width)
        )
        for count, width in sizes(full)
        for seeds in (1, 8)
        for name, build in ways(seeds).items()
    }


def main() -> None:
    args = harness.arguments(__doc__.splitlines()[0]).parse_args()
    if args.variant:
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        run = cases(args.full)[args.variant]()
        harness.report(harness.measure(run, repeats=args.repeats))
        return
    reports = harness.in_processes(__file__, list(cases(args.full)), args)
    rows: list[list[harness.Cell]] = []
    for name, values in reports.items():
        base = reports.get(name.split(": ")[0] + ": plain")
        if isinstance(values, str):
            rows.append([name, values, None, None])
            continue
        faster = base["seconds"] / values["seconds"] if isinstance(base, dict) else None
        rows.append([name, values["seconds"], faster, values["MiB"]])
    counts = " and ".join(f"{count:,}" for count in sorted({c for c, _ in sizes(args.full)}))
    print(f"ConvNet of 3 blocks, one epoch of {counts} images of 3x32x32, batches of {BATCH}")
    print(harness.machine() + "\n")
    harness.table(["", "s", "times as fast", "peak MiB"], rows)


if __name__ == "__main__":
    main()
