"""A step of consistency training (Dong et al., Eq 8): ours, a plain loop, and its passes alone.

    uv run benchmarks/consistency_step.py           ResNet-18 with 16 and 8 filters, two steps
    uv run benchmarks/consistency_step.py --full    with 64 filters, for a GPU

100 images of 3x32x32, ten attack steps. *Straightforward* follows the equations literally: the
attack, then the clean images and the adversarial ones one after the other. *Passes alone* is the
minimum of any such step: ten forward and backward passes with gradients of a batch of images, and
one with gradients of the parameters for two batches. *Ours* is the LightningModule in its Trainer,
with data.
"""

import argparse
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import harness
import lightning as L
import torch
from expert_epoch import Generated
from torch import Tensor, nn
from torch.nn import functional as F

from cwx.cli.allocator import keep_freed_memory
from cwx.data.datamodule import ImageData
from cwx.functional.attacks import Attack, Linf
from cwx.functional.augmentation import Strategy
from cwx.methods.consistency import ConsistencyObjective
from cwx.methods.expert import Expert
from cwx.networks.resnet import ResNet, basic_block
from cwx.storage.recording import Recording

BATCH, T, ALPHA, BETA, LR = 100, 10, 0.5, 0.1, 0.005
CLASSES = 10
Run = Callable[["Problem"], Any]


class Problem:
    """A network, and the batches of a few steps."""

    def __init__(self, width: int, steps: int, stages: Sequence[int] = (2, 2, 2, 2)) -> None:
        torch.manual_seed(0)
        keep_freed_memory()
        self.network = ResNet(
            stages=stages,
            block=basic_block,
            width=width,
            norm=nn.BatchNorm2d,
            in_channels=3,
            image_size=(32, 32),
            num_classes=CLASSES,
        ).to(harness.device())
        self.steps = steps
        self.data = ImageData(
            source=Generated(steps * BATCH),
            mean=0.5,
            std=0.5,
            batch_size=BATCH,
            per_class=None,
            total=None,
        )
        self.data.setup()

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.network.parameters(), lr=LR, momentum=0.9, weight_decay=0.00005)

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        device = harness.device()
        return [
            (images.to(device), labels.to(device))
            for ((images, labels, _),) in self.data.batches(
                size=BATCH, seeds=[0]
            ).train_dataloader()
        ]


def targeted_gradient(
    network: nn.Module, images: Tensor, targets: Tensor, *, parameters: bool
) -> Tensor:
    """Gradient of the targets' cross-entropy with respect to the images.

    `parameters`: also compute the gradients of the parameters.
    """
    leaf = images.detach().requires_grad_()
    loss = F.cross_entropy(network(leaf), targets, reduction="sum")
    if not parameters:
        return torch.autograd.grad(loss, leaf)[0]
    loss.backward()
    assert leaf.grad is not None
    return leaf.grad


def straightforward(problem: Problem, *, parameters: bool) -> None:
    network, optimizer = problem.network, problem.optimizer()
    for images, labels in problem.batches():
        targets = (labels + torch.randint_like(labels, 1, CLASSES)) % CLASSES
        network.eval()
        attacked = images
        for _ in range(T):
            gradient = targeted_gradient(network, attacked, targets, parameters=parameters)
            # Normalised pixels are in -1 to 1: a step of 1/255 is 2/255 there.
            attacked = (attacked - gradient.sign() * 2 / 255).clamp(-1, 1)
        network.train()
        optimizer.zero_grad()
        (logits, maps), (attacked_logits, attacked_maps) = (
            logits_and_maps(network, x) for x in (images, attacked)
        )
        distance = (maps - attacked_maps).square().flatten(1).sum(1).mean()
        clean, adversarial = (F.cross_entropy(x, labels) for x in (logits, attacked_logits))
        (ALPHA * clean + (1 - ALPHA) * adversarial + BETA * distance).backward()
        optimizer.step()


def logits_and_maps(network: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the maps of the last convolution."""
    maps = network.blocks(network.stem(images))
    return network.classifier(maps.mean((2, 3))), maps


def passes(problem: Problem) -> None:
    network = problem.network
    for images, labels in problem.batches():
        network.eval()
        for _ in range(T):
            targeted_gradient(network, images, labels, parameters=False)
        network.train()
        network.zero_grad()
        F.cross_entropy(network(torch.cat([images, images])), torch.cat([labels] * 2)).backward()


def ours(problem: Problem, *, precision: str = "32-true", channels_last: bool = False) -> None:
    module = Expert(
        networks=[problem.network],
        data=problem.data,
        seeds=[0],
        stages=["consistency"],
        epochs=1,
        batch_size=BATCH,
        augment=Strategy({}),
        attack=Attack(
            ball=Linf(), epsilon=255, scale=255, step=1, steps=T, random_start=False, targeted=True
        ),
        objective=partial(ConsistencyObjective, alpha=ALPHA, beta=BETA, layer=None),
        optimizer=partial(torch.optim.SGD, lr=LR, momentum=0.9, weight_decay=0.00005),
        schedule=None,
        channels_last=channels_last,
        recording=Recording(),
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


BASE, PASSES = "straightforward", "passes alone"
WAYS: dict[str, Run] = {
    BASE: partial(straightforward, parameters=False),
    "straightforward, by loss.backward()": partial(straightforward, parameters=True),
    PASSES: passes,
    "ours": ours,
    "ours, channels last": partial(ours, channels_last=True),
}
ON_GPU: dict[str, Run] = {
    "ours, channels last, bf16": partial(ours, channels_last=True, precision="bf16-mixed")
}


def widths(args: argparse.Namespace) -> tuple[int, ...]:
    return (64,) if args.full else (4,) if args.toy else (16, 8)


def variants(args: argparse.Namespace) -> dict[str, tuple[int, Run]]:
    ways = WAYS | (ON_GPU if torch.cuda.is_available() else {})
    return {f"{w} filters: {name}": (w, way) for w in widths(args) for name, way in ways.items()}


def steps(args: argparse.Namespace) -> int:
    return 30 if args.full else 2


def main() -> None:
    args = harness.arguments(__doc__.splitlines()[0], toy=True).parse_args()
    torch.backends.cudnn.allow_tf32 = False
    if args.variant:
        measure_variant(args)
        return
    reports = harness.in_processes(__file__, list(variants(args)), args)
    rows: list[list[harness.Cell]] = []
    for name, values in reports.items():
        if isinstance(values, str):
            rows.append([name, values, None, None, None])
            continue
        base, alone = (reports.get(f"{name.split(':')[0]}: {way}") for way in (BASE, PASSES))
        seconds = values["seconds"]
        faster = base["seconds"] / seconds if isinstance(base, dict) else None
        longer = seconds / alone["seconds"] if isinstance(alone, dict) else None
        milliseconds = 1000 * values["seconds a step"]
        rows.append([name, milliseconds, faster, longer, values["MiB"]])
    print(f"ResNet-18, {BATCH} images of 3x32x32, {T} attack steps")
    print(harness.machine() + "\n")
    harness.table(["", "ms a step", "times as fast", "of its passes", "peak MiB"], rows)


def measure_variant(args: argparse.Namespace) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    width, way = variants(args)[args.variant]
    problem = Problem(width, steps(args), **({"stages": (1, 1)} if args.toy else {}))
    values = harness.measure(lambda: way(problem), repeats=args.repeats)
    harness.report({**values, "seconds a step": values["seconds"] / steps(args)})


if __name__ == "__main__":
    main()
