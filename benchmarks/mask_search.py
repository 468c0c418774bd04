"""Pattern searches for 10 classes x 5 canvases: in one batch, and one after another.

    uv run benchmarks/mask_search.py             ResNet-18 with 64 and with 8 filters, few steps
    uv run benchmarks/mask_search.py --full      more steps, for a GPU

Every variant takes the same first steps of Algorithm 1, with 4 images per search and the shapes of
CIFAR-10. The last column is the fraction of mask pixels equal to those of the searches one by one.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir

import harness
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cwx.cli.allocator import keep_freed_memory
from cwx.functional.images import Normalization
from cwx.functional.mask_search import SignDescent, search_gradients
from cwx.networks.resnet import ResNet, basic_block

SEARCHES, BATCH, ALPHA, STEP = 50, 4, 0.2, 0.02
NORMALIZATION = Normalization(mean=(0.5,) * 3, std=(0.5,) * 3)
WIDTHS = (64, 8)
Search = Callable[["Problem"], Tensor]


class Problem:
    """A network, the canvases and the images of each search and step."""

    def __init__(self, width: int, steps: int, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(0)
        device = harness.device()
        network = ResNet(
            stages=[2, 2, 2, 2],
            block=basic_block,
            width=width,
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


def variants() -> dict[str, tuple[int, Search]]:
    ways = WAYS | (ON_GPU if torch.cuda.is_available() else {})
    return {f"{w} filters: {name}": (w, way) for w in WIDTHS for name, way in ways.items()}


def steps(full: bool, width: int) -> int:
    return 50 if full else 128 // width


def reference_file(width: int) -> Path:
    return Path(gettempdir()) / f"cwx-mask-search-{width}-{harness.device().type}.pt"


def measure_variant(name: str, args: argparse.Namespace) -> dict[str, float]:
    width, search = variants()[name]
    problem = Problem(width, steps(args.full, width))
    values = harness.measure(lambda: search(problem), repeats=args.repeats)
    masks = search(problem).float().cpu()
    if name.endswith(f": {BASE}"):
        torch.save(masks, reference_file(width))
    expected = torch.load(reference_file(width), weights_only=True)
    return {**values, "same": torch.isclose(masks, expected, atol=1e-4).double().mean().item()}


def main() -> None:
    args = harness.arguments(__doc__.splitlines()[0]).parse_args()
    torch.backends.cudnn.allow_tf32 = False
    if args.variant:
        harness.report(measure_variant(args.variant, args))
        return
    reports = harness.in_processes(__file__, list(variants()), args)
    rows: list[list[harness.Cell]] = []
    for name, values in reports.items():
        base = reports.get(f"{name.split(':')[0]}: {BASE}")
        if isinstance(values, str):
            rows.append([name, values, None, None, None])
            continue
        speed = base["seconds"] / values["seconds"] if isinstance(base, dict) else None
        count = SEARCHES * BATCH * steps(args.full, variants()[name][0])
        images = 1000 * values["seconds"] / count
        rows.append([name, images, speed, values["MiB"], values["same"]])
    print(f"{SEARCHES} searches, {BATCH} images of 3x32x32 a search and step")
    print(harness.machine() + "\n")
    harness.table(["", "ms an image", "times as fast", "peak MiB", "same pixels"], rows)


if __name__ == "__main__":
    main()
