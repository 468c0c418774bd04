"""A set of adversarial images, on disk, of a study's test images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from cwx.storage.shards import Shards


@dataclass(frozen=True, kw_only=True)
class AdversarialSet:
    """AdversarialSet images of test images, which stay on disk until they are asked for.

    Attributes:
        labels: of the originals, ``[n]``.
        targets: the class that each was made for, ``[n]``, never its label.
        originals: the index among the test images of what each was made from, ``[n]``.
        members: the names in the study of the networks attacked.
        metrics: how well it went, by name.
    """

    shards: Shards
    labels: Tensor
    targets: Tensor
    originals: Tensor
    members: Sequence[str]
    metrics: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls, shards: Shards, *, members: Sequence[str], metrics: Mapping[str, float]
    ) -> "AdversarialSet":
        """The set in `shards`, of ``images`` as bytes, ``labels``, ``targets``, ``originals``."""
        small = {name: shards.tensor(name).long() for name in ("labels", "targets", "originals")}
        return cls(shards=shards, members=members, metrics=metrics, **small)

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self) -> Iterator[tuple[slice, Tensor]]:
        """Which of them, and their images as bytes ``[rows, C, H, W]``, in order."""
        return self.shards.batches("images")

    def at(self, indices: Tensor) -> Tensor:
        """The images at `indices` ``[k]``, as bytes ``[k, C, H, W]``."""
        return self.shards.at("images", indices)
