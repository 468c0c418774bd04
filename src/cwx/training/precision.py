"""Named precisions of computing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How exactly a stage computes.

    Attributes:
        trainer: Lightning's precision: "32-true", "64-true", or autocast by "bf16-mixed".
        float32_matmul: torch's precision of float32 products: "highest", or "high" for TF32 on
            GPUs that have it; convolutions follow it.
    """

    trainer: str
    float32_matmul: str

    def __post_init__(self) -> None:
        names = ("highest", "high", "medium")
        if self.float32_matmul not in names:
            raise ValueError(
                f"float32_matmul is {self.float32_matmul!r}: give one of {', '.join(names)}"
            )

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Set what is global in torch; it gets its earlier values back."""
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        torch.set_float32_matmul_precision(self.float32_matmul)
        torch.backends.cudnn.allow_tf32 = self.float32_matmul != "highest"
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before[0])
            torch.backends.cudnn.allow_tf32 = before[1]


@dataclass(frozen=True, kw_only=True)
class Precisions:
    """Of a study's stages.

    Attributes:
        experts: while networks train; an expert is another one in another precision.
        methods: while explanations are made.
    """

    experts: Precision
    methods: Precision
