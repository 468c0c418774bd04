"""The trigger of WaNet: an invisible warp (Nguyen & Tran 2021, *WaNet*, §3).

Images are bytes ``[n, C, H, W]`` in 0-255.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from cwx.functional.backdoor import Shape
from cwx.functional.rng import stream
from cwx.functional.trigger_settings import require

# Images that are sampled at a time, so that floats take little memory.
_CHUNK = 1024
# A pixel that is sampled nearer to its own centre than this, in pixels, never changes.
_STILL = 1e-5


@dataclass(frozen=True, kw_only=True)
class Warp:
    """Samples each image on a smoothly displaced grid (WaNet, Eq 4-6).

        x(g) ← x(clip(r · (g + s · f(g) / side), −1, 1))

    g are the coordinates of the pixels, −1 at the first and 1 at the last pixel of a side. f is the
    field: k x k pairs drawn uniformly from [−1, 1], divided by their mean absolute value, and
    interpolated bicubically to the size of the image. So the mean displacement of the k x k points
    is s / 2 pixels in each direction. A cover image is sampled on the same grid plus u / side, with
    u drawn uniformly from [−a, a] for each image, pixel and direction: the noise mode.

    Attributes:
        points: k, control points along each side.
        strength: s.
        rescale: r; 1 keeps the scale of the image.
        noise: a, the strength of the noise in cover images.
        seed: of the field.
    """

    points: Annotated[int, ">= 2, <= 1000"]
    strength: Annotated[float, "> 0, <= 1000"]
    rescale: Annotated[float, "> 0, <= 10"]
    noise: Annotated[float, "> 0, <= 1000"]
    seed: Annotated[int, ">= 0, < 2**63"]

    def __post_init__(self) -> None:
        points = 2 <= self.points <= 1000
        require("corruption.trigger.points", self.points, points, "2 to 1000")
        for name, value, limit in (
            ("strength", self.strength, 1000),
            ("rescale", self.rescale, 10),
            ("noise", self.noise, 1000),
        ):
            remedy = f"above 0, at most {limit}"
            require(f"corruption.trigger.{name}", value, 0 < value <= limit, remedy)

    def apply(self, images: Tensor) -> Tensor:
        return self._sample(images, torch.zeros(1, *images.shape[2:], 2))

    def mask(self, shape: Shape) -> Tensor:
        sides = torch.tensor([shape[2] - 1, shape[1] - 1]) / 2
        moved = (self._grid(shape) - _coordinates(shape)).abs() * sides
        return (moved.amax(-1) > _STILL).float()

    def poison(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The trigger itself: training images carry that of test images."""
        return self.apply(images)

    def cover(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Copies of the images, each warped by the field and its own noise."""
        noise = torch.stack(
            [torch.rand(*images.shape[2:], 2, generator=generator) for _ in range(len(images))]
            or [torch.empty(*images.shape[2:], 2)]
        )
        return self._sample(images, self.noise * (2 * noise - 1))

    def _sample(self, images: Tensor, noise: Tensor) -> Tensor:
        """Warp by the field and `noise` ``[n or 1, H, W, 2]`` in units of 1 / side."""
        shape = images.shape[1:]
        noise = noise / _sides(shape)
        grid = (self._grid(shape) + noise).clamp(-1, 1).to(images.device)
        parts = []
        for rows in torch.arange(len(images)).split(_CHUNK):
            part = images[rows.to(images.device)]
            own = grid[rows] if len(grid) > 1 else grid.expand(len(part), -1, -1, -1)
            sampled = F.grid_sample(part.float(), own, align_corners=True)
            parts.append(sampled.round().clamp(0, 255).byte())
        return torch.cat(parts) if parts else images.clone()

    def _grid(self, shape: Shape) -> Tensor:
        """The displaced coordinates ``[H, W, 2]`` (x, y)."""
        field = 2 * torch.rand(1, 2, self.points, self.points, generator=stream(self.seed)) - 1
        field = field / field.abs().mean()
        smooth = F.interpolate(field, size=tuple(shape[1:]), mode="bicubic", align_corners=True)
        moved = _coordinates(shape) + self.strength * smooth[0].permute(1, 2, 0) / _sides(shape)
        return (self.rescale * moved).clamp(-1, 1)


def _sides(shape: Shape) -> Tensor:
    """Width and height, in the order of the coordinates."""
    return torch.tensor([shape[2], shape[1]])


def _coordinates(shape: Shape) -> Tensor:
    """The coordinates ``[H, W, 2]`` (x, y) of the pixels."""
    y, x = (torch.linspace(-1, 1, side) for side in shape[1:])
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
