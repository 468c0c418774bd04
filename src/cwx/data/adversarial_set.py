"""Adversarial images of a study's test images, on disk."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from cwx.storage.shards import Shards


@dataclass(frozen=True, kw_only=True)
class AdversarialSet:
    """Adversarial images of test images; the images stay on disk until they are read.

    Attributes:
        shards: the files with the images.
        labels: class indices of the originals, ``[n]``.
        targets: the target class of each attack, ``[n]``; never equal to the label.
        originals: the index of the original among the test images, ``[n]``.
        members: the attacked networks, by one name of the study each.
        attacked: all names whose first network was attacked, `members` among them.
        metrics: metrics of the attack, by name.
    """

    shards: Shards
    labels: Tensor
    targets: Tensor
    originals: Tensor
    members: Sequence[str]
    attacked: Sequence[str]
    metrics: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_shards(
        cls,
        shards: Shards,
        *,
        members: Sequence[str],
        attacked: Sequence[str],
        metrics: Mapping[str, float],
    ) -> "AdversarialSet":
        """The set in `shards`: ``images`` as bytes, ``labels``, ``targets``, ``originals``."""
        indices = {name: shards.tensor(name).long() for name in ("labels", "targets", "originals")}
        return cls(shards=shards, members=members, attacked=attacked, metrics=metrics, **indices)

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, *, first: int = 0, step: int = 1) -> Iterator[tuple[slice, Tensor]]:
        """Batches in order: their rows, and their images as bytes ``[rows, C, H, W]``.

        Every `step`-th batch from number `first` on; no other is read.
        """
        return self.shards.batches("images", first=first, step=step)

    def at(self, indices: Tensor) -> Tensor:
        """The images at `indices` ``[k]``, as bytes ``[k, C, H, W]``."""
        return self.shards.at("images", indices)
