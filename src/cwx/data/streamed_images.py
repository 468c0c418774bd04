"""Images that stay in files and are decoded when they are indexed."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cwx.data.free_memory import release_freed_memory
from cwx.data.random_crops import RandomCrops
from cwx.data.worker_loader import WorkerLoader

# Bytes of decoded images in a chunk, where no batch size is given.
_CHUNK = 2**23
# Fewer images than this are decoded in the calling process: to start workers takes longer.
_LEAST_FOR_WORKERS = 512

Change = Callable[[Tensor], Tensor]
"""Maps byte images ``[n, C, H, W]`` to changed ones, each independently of the others."""


DrawnCrop = tuple[RandomCrops, tuple[int, int, int]]
"""A random crop: what is drawn, and the seed, the epoch and the index of the image."""


class Decoder(Protocol):
    """A list of image files of one decoded size.

    Attributes:
        shape: channels, height and width of a decoded image.
    """

    shape: tuple[int, int, int]

    @property
    def workers(self) -> int:
        """Processes that decode; 0 for the calling process."""

    def decode(self, row: int, drawn: DrawnCrop | None = None) -> Tensor:
        """The image at `row` of the list, or a random crop of it, as bytes ``[C, H, W]``.

        Raises:
            ValueError: the file cannot be read, or is not the one that was listed.
        """

    def recall(self, row: int) -> Tensor:
        """As `decode`, from a cache of bounded size in this process; do not change the tensor."""

    def identity(self, rows: Tensor) -> bytes:
        """A digest of the content of the files at `rows`, and of how they are decoded."""


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """A byte tensor ``[n, C, H, W]`` whose images are decoded when they are indexed.

    To index it gives a tensor, as to index a tensor does. `select` gives a subset that is decoded
    later; `split` and `chunks` decode all images once, in order, in bounded memory.

    Attributes:
        files: decodes them.
        rows: the row of each image in `files`, ``[n]``.
        changes: changes after decoding, each with the boolean mask ``[n]`` of the images that it
            applies to.
        device: of the decoded images.
    """

    files: Decoder
    rows: Tensor
    changes: Sequence[tuple[Tensor, Change]] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    dtype = torch.uint8
    ndim = 4

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), *self.files.shape))

    def to(self, device: torch.device) -> "StreamedImages":
        """The same images, decoded onto `device`."""
        return replace(self, device=device)

    def select(self, indices: Tensor) -> "StreamedImages":
        """The images at `indices`, or where a boolean mask is True; nothing is decoded."""
        indices = indices.cpu()
        changes = [(mask[indices], change) for mask, change in self.changes]
        return replace(self, rows=self.rows[indices], changes=changes)

    def changed(self, indices: Tensor, change: Change) -> "StreamedImages":
        """The same images, with a change of those at `indices` after decoding."""
        mask = torch.zeros(len(self), dtype=torch.bool)
        mask[indices.cpu()] = True
        return replace(self, changes=[*self.changes, (mask, change)])

    def __getitem__(self, index: Any) -> Tensor:
        # Whatever indexes a tensor indexes the positions.
        positions = torch.arange(len(self))[index.cpu() if isinstance(index, Tensor) else index]
        distinct, inverse = positions.unique(return_inverse=True)
        if len(distinct) < _LEAST_FOR_WORKERS:
            # Searches ask for the same images again and again.
            images = self._read(distinct, self.files.recall)
        else:
            images = torch.empty((len(distinct), *self.files.shape), dtype=torch.uint8)
            start = 0
            for chunk in self._decoded(distinct, self._chunk_size()):
                images[start : start + len(chunk)] = chunk
                start += len(chunk)
        return images.to(self.device)[inverse.to(self.device)]

    def split(self, size: int) -> Iterator[Tensor]:
        """All images in order, `size` at a time."""
        for chunk in self._decoded(torch.arange(len(self)), size):
            yield chunk.to(self.device)

    def chunks(self) -> Iterator[Tensor]:
        """All images in order, as many at a time as take little memory."""
        for chunk in self.split(self._chunk_size()):
            yield chunk
            # glibc does not reuse all of what a caller frees: a pass would need more and more.
            release_freed_memory()

    def clone(self) -> Tensor:
        """Not available.

        Raises:
            ValueError: with the remedy.
        """
        raise ValueError(
            "this part of the study changes a copy of all images in memory, but they are decoded "
            "from disk when they are needed: set data.storage=memory, or leave that part out"
        )

    def decode(self, positions: Tensor) -> Tensor:
        """The images at these positions ``[m]``, decoded in this process, on the CPU.

        Raises:
            ValueError: names a file that cannot be read, or that changed.
        """
        return self._read(positions, self.files.decode)

    def crop(self, positions: Tensor, crops: RandomCrops, seed: int, epoch: int) -> Tensor:
        """Random crops of the images at these positions, as `decode`.

        Their draws are those of the positions. The images must have no changes.
        """
        assert not self.changes
        images = torch.empty((len(positions), *self.files.shape), dtype=torch.uint8)
        rows = zip(positions.tolist(), self.rows[positions].tolist(), strict=True)
        for place, (position, row) in enumerate(rows):
            images[place] = self.files.decode(row, (crops, (seed, epoch, position)))
        return images

    def _read(self, positions: Tensor, decode: Callable[[int], Tensor]) -> Tensor:
        images = torch.empty((len(positions), *self.files.shape), dtype=torch.uint8)
        for place, row in enumerate(self.rows[positions].tolist()):
            images[place] = decode(row)
        for mask, change in self.changes:
            if (selected := mask[positions]).any():
                images[selected] = change(images[selected])
        return images

    def identity(self) -> str:
        """A digest of the images: of the files, how they are decoded, and how they are changed."""
        digest = hashlib.sha256(self.files.identity(self.rows))
        if self.changes:
            changed = torch.stack([mask for mask, _ in self.changes]).any(0)
            digest.update(changed.numpy().tobytes())
            for chunk in self.select(changed).chunks():
                digest.update(chunk.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def differing(self, other: "StreamedImages") -> Tensor:
        """Boolean mask ``[n]``: False where both images are surely the same."""
        if self.files is not other.files:
            return torch.ones(len(self), dtype=torch.bool)
        masks = [mask for mask, _ in (*self.changes, *other.changes)]
        return torch.stack([self.rows != other.rows, *masks]).any(0)

    def _chunk_size(self) -> int:
        return max(1, _CHUNK // max(1, torch.Size(self.files.shape).numel()))

    def _decoded(self, positions: Tensor, size: int) -> Iterator[Tensor]:
        parts = positions.split(size)
        if len(positions) < _LEAST_FOR_WORKERS or not self.files.workers:
            yield from map(self.decode, parts)
        else:
            yield from WorkerLoader(_Parts(self), parts, workers=self.files.workers)


class _Parts(Dataset[Tensor]):
    def __init__(self, images: StreamedImages) -> None:
        self.images = images

    def __getitem__(self, positions: Tensor) -> Tensor:
        return self.images.decode(positions)


Images = Tensor | StreamedImages
"""Byte images ``[n, C, H, W]``: in memory, or in files."""


def strided_batches(
    images: Images, size: int, *, first: int = 0, step: int = 1
) -> Iterator[tuple[int, Tensor]]:
    """Every `step`-th batch of images in order, with the index of its first image.

    Images in files are decoded only if they are in one of these batches.

    Args:
        images: split into batches.
        size: of a batch; the last may be smaller.
        first: the number of the first batch to yield, from 0.
        step: 1 for all batches.
    """
    starts = range(first * size, len(images), step * size)
    if isinstance(images, Tensor):
        parts: Iterator[Tensor] = (images[start : start + size] for start in starts)
    else:
        indices = [torch.arange(s, min(s + size, len(images))) for s in starts]
        # Without a batch, no worker process starts.
        parts = images.select(torch.cat(indices)).split(size) if indices else iter(())
    return zip(starts, parts, strict=True)


def change_images(images: Images, indices: Tensor, change: Change) -> Images:
    """Copies of the images, with a change of those at `indices`."""
    if isinstance(images, StreamedImages):
        return images.changed(indices, change)
    copies = images.clone()
    copies[indices] = change(images[indices])
    return copies
