"""Numerical precisions, by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The numerical precision of a stage.

    Attributes:
        trainer: precision of Lightning: "32-true", "64-true", or "bf16-mixed" for autocast.
        float32_matmul: precision of float32 matrix products in torch: "highest", "high" (TF32 on
            GPUs that support it) or "medium"; convolutions use TF32 unless "highest".

    Raises:
        ValueError: `float32_matmul` is none of these names.
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
    def activate(self) -> Iterator[None]:
        """Set the global precision of torch; the earlier values are restored at the end."""
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
    """The precisions of a study's stages.

    Attributes:
        experts: for training; part of the identity of an expert in the store.
        methods: for explanation methods.
    """

    experts: Precision
    methods: Precision
