"""Pattern searches for 10 classes x 5 canvases: in one batch, and one after another.

    uv run benchmarks/mask_search.py             ResNet-18 with 64 and with 8 filters, few steps
    uv run benchmarks/mask_search.py --full      more steps, and ResNet-50, for a GPU

Every variant takes the same first steps of Algorithm 1, with 4 images per search and the shapes of
CIFAR-10. The last column is the fraction of mask pixels equal to those of the searches one by one.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import harness
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cwx.cli.allocator import keep_freed_memory
from cwx.functional.images import Normalization
from cwx.functional.mask_search import SignDescent, search_gradients
from cwx.networks.resnet import ResNet, basic_block, bottleneck

SEARCHES, BATCH, ALPHA, STEP = 50, 4, 0.2, 0.02
NORMALIZATION = Normalization(mean=(0.5,) * 3, std=(0.5,) * 3)
RESNET18 = {"stages": [2, 2, 2, 2], "block": basic_block}
# The networks of each size of the benchmark, and the number of steps.
DEFAULT = {
    "64 filters": ({**RESNET18, "width": 64}, 2),
    "8 filters": ({**RESNET18, "width": 8}, 16),
}
FULL = {
    "64 filters": ({**RESNET18, "width": 64}, 50),
    "8 filters": ({**RESNET18, "width": 8}, 50),
    "ResNet-50": ({"stages": [3, 4, 6, 3], "block": bottleneck, "width": 64}, 20),
}
TOY = {"ResNet-50": ({"stages": [1, 1], "block": bottleneck, "width": 4}, 2)}
Search = Callable[["Problem"], Tensor]


class Problem:
    """A network, the canvases and the images of each search and step."""

    def __init__(
        self, shape: dict[str, Any], steps: int, dtype: torch.dtype = torch.float32
    ) -> None:
        torch.manual_seed(0)
        device = harness.device()
        network = ResNet(
            **shape,
            norm=nn.BatchNorm2d,
            in_channels=3,
            image_size=(32, 32),
            num_classes=10,
        )
        self.network, self.steps = network.to(device, dtype).eval(), steps
        self.canvases = torch.rand(SEARCHES, 3, 32, 32).to(device, dtype)
        self.images = torch.rand(steps, SEARCHES, BATCH, 3, 32, 32).to(device, dtype)
        self.labels = torch.arange(10, device=device).repeat_interleave(SEARCHES // 10)
        self.masks = torch.full((SEARCHES, 32, 32), 0.5, device=device, dtype=dtype)


def one_by_one(problem: Problem) -> Tensor:
    """The literal loop of Algorithm 1: `backward` also computes gradients of the parameters."""
    masks = []
    for search, canvas in enumerate(problem.canvases):
        mask = problem.masks[search].clone().requires_grad_()
        target = problem.labels[search].expand(BATCH)
        for images in problem.images[:, search]:
            mixed = mask * canvas + (1 - mask) * images
            logits = problem.network(NORMALIZATION.normalize(mixed))
            loss = F.cross_entropy(logits, target, reduction="sum") + BATCH * ALPHA * mask.mean()
            loss.backward()
            with torch.no_grad():
                mask -= STEP * mask.grad.sign()
                mask.clamp_(0, 1)
            mask.grad = None
            problem.network.zero_grad()
        masks.append(mask.detach())
    return torch.stack(masks)


def frozen(problem: Problem) -> Tensor:
    problem.network.requires_grad_(False)
    return one_by_one(problem)


def together(problem: Problem) -> Tensor:
    problem.network.requires_grad_(False)
    masks = nn.Parameter(problem.masks.clone())
    optimizer = SignDescent([masks], lr=STEP)
    weights = torch.ones(SEARCHES, BATCH, device=masks.device, dtype=masks.dtype)
    for images in problem.images:
        masks.grad, _ = search_gradients(
            problem.network,
            masks,
            problem.canvases,
            images,
            problem.labels,
            weights,
            normalization=NORMALIZATION,
            alpha=ALPHA,
            beta=0.0,
            canvas=False,
        )
        optimizer.step()
        with torch.no_grad():
            masks.clamp_(0, 1)
    return masks.detach()


def with_allocator(search: Search) -> Search:
    def run(problem: Problem) -> Tensor:
        keep_freed_memory()
        return search(problem)

    return run


def channels_last(search: Search) -> Search:
    def run(problem: Problem) -> Tensor:
        problem.network.to(memory_format=torch.channels_last)
        return search(problem)

    return run


def tf32(search: Search) -> Search:
    def run(problem: Problem) -> Tensor:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        return search(problem)

    return run


def bf16(search: Search) -> Search:
    def run(problem: Problem) -> Tensor:
        with torch.autocast(harness.device().type, torch.bfloat16):
            return search(problem)

    return run


BASE = "one by one"
WAYS: dict[str, Search] = {
    BASE: one_by_one,
    "one by one, frozen network": frozen,
    "together": with_allocator(together),
    "together, channels last": with_allocator(channels_last(together)),
    "together, bf16": with_allocator(bf16(together)),
}
ON_GPU = {"together, TF32": tf32(together)}


def networks(args: argparse.Namespace) -> dict[str, tuple[dict[str, Any], int]]:
    return FULL if args.full else TOY if args.toy else DEFAULT


def variants(args: argparse.Namespace) -> dict[str, tuple[str, Search]]:
    """The network and the way of each variant, by name."""
    ways = WAYS | (ON_GPU if torch.cuda.is_available() else {})
    return {f"{n}: {name}": (n, way) for n in networks(args) for name, way in ways.items()}


def reference_file(network: str) -> Path:
    name = network.replace(" ", "-")
    return Path(gettempdir()) / f"cwx-mask-search-{name}-{harness.device().type}.pt"


def measure_variant(name: str, args: argparse.Namespace) -> dict[str, float]:
    network, search = variants(args)[name]
    shape, steps = networks(args)[network]
    problem = Problem(shape, steps)
    values = harness.measure(lambda: search(problem), repeats=args.repeats)
    masks, file = search(problem).float().cpu(), reference_file(network)
    # The first variant of a network that has run is the reference of the others.
    if not file.exists():
        torch.save(masks, file)
    expected = torch.load(file, weights_only=True)
    same = torch.isclose(masks, expected, atol=1e-4).double().mean().item()
    return {**values, "seconds a step": values["seconds"] / steps, "same": same}


def main() -> None:
    args = harness.arguments(__doc__.splitlines()[0], toy=True).parse_args()
    torch.backends.cudnn.allow_tf32 = False
    if args.variant:
        harness.report(measure_variant(args.variant, args))
        return
    for network in networks(args):
        reference_file(network).unlink(missing_ok=True)
    reports = harness.in_processes(__file__, list(variants(args)), args)
    rows: list[list[harness.Cell]] = []
    for name, values in reports.items():
        base = reports.get(f"{name.split(':')[0]}: {BASE}")
        if isinstance(values, str):
            rows.append([name, values, None, None, None])
            continue
        speed = base["seconds"] / values["seconds"] if isinstance(base, dict) else None
        images = 1000 * values["seconds a step"] / (SEARCHES * BATCH)
        rows.append([name, images, speed, values["MiB"], values["same"]])
    print(f"{SEARCHES} searches, {BATCH} images of 3x32x32 a search and step")
    print(harness.machine() + "\n")
    harness.table(["", "ms an image", "times as fast", "peak MiB", "same pixels"], rows)


if __name__ == "__main__":
    main()
