"""Image files with their manifest: decoded one by one, and refused if they changed."""

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cwx.data.image_files import Reader
from cwx.data.manifest import Manifest
from cwx.data.random_crops import Drawn
from cwx.data.storage import Storage
from cwx.data.stored_images import ImageContainer, ImageFile, image_digest, image_status
from cwx.data.streamed_images import DrawnCrop
from cwx.errors import printable

# Bytes of decoded images that are kept for searches that ask for the same ones again.
_CACHE = 2**28


class ListedFiles:
    """Files with their records: decodes them, and refuses what changed since (see `Decoder`).

    Args:
        container: has all files.
        files: the files.
        manifest: their records, in the same order.
        reader: decodes.
        shape: channels, height and width of every image.
        storage: its `processes` decode.
    """

    def __init__(
        self,
        container: ImageContainer,
        files: Sequence[ImageFile],
        manifest: Manifest,
        reader: Reader,
        shape: tuple[int, int, int],
        storage: Storage,
    ) -> None:
        self.container, self.reader, self.shape, self.storage = container, reader, shape, storage
        # Two buffers instead of many objects, whose reference counts would make each worker copy
        # the memory that it shares with this process.
        packed = [container.pack(file) for file in files]
        self._ends = np.cumsum([len(place) for place in packed], dtype=np.int64)
        self._packed = b"".join(packed)
        self._status, self._digests = manifest.records[:, :2].clone(), manifest.digests
        entries = (
            hashlib.sha256(name + b"\0" + str(size).encode() + b"\0" + digest).digest()
            for name, size, digest in zip(
                manifest.names,
                self._status[:, 0].tolist(),
                map(bytes, manifest.digests.numpy()),
                strict=True,
            )
        )
        self._entries = _as_tensor(b"".join(entries)).view(-1, hashlib.sha256().digest_size)
        self._remembered = self._new_cache()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_remembered"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._remembered = self._new_cache()

    @property
    def workers(self) -> int:
        """Processes that decode: of a study, they are known only when all its ranks have begun."""
        return self.storage.processes

    def _new_cache(self) -> Callable[[int], Tensor]:
        return lru_cache(max(1, _CACHE // prod(self.shape)))(self.decode)

    def recall(self, row: int) -> Tensor:
        return self._remembered(row)

    def file(self, row: int) -> ImageFile:
        start = int(self._ends[row - 1]) if row else 0
        return self.container.unpack(self._packed[start : int(self._ends[row])])

    def decode(self, row: int, drawn: DrawnCrop | None = None) -> Tensor:
        file = self.file(row)
        try:
            changed = list(image_status(file)) != self._status[row].tolist()
            if changed or self.container.checks_content:
                self._check_content(file, row)
        except OSError as error:
            raise ValueError(
                f"{printable(file)} cannot be read any more "
                f"({error.strerror or type(error).__name__}): put the same file back, and continue "
                "with resume"
            ) from error
        fit = None
        if drawn is not None:
            crops, key = drawn
            fit = Drawn(crops, self.shape[1:], self.reader.fit, key)
        _, pixels = self.reader.decode(file, fit)
        if tuple(pixels.shape) != self.shape:
            raise _changed(file)
        return pixels

    def _check_content(self, file: ImageFile, row: int) -> None:
        # A copy or a touch changes the time alone.
        if image_digest(file) != self._digests[row].numpy().tobytes():
            raise _changed(file)

    def identity(self, rows: Tensor) -> bytes:
        digest = hashlib.sha256(repr((self.shape, self.reader.settings())).encode())
        digest.update(self._entries[rows].numpy().tobytes())
        return digest.digest()


def _changed(file: ImageFile) -> ValueError:
    return ValueError(
        f"{printable(file)} has changed since the images were listed at the start: put the first "
        "file back and continue with resume, or start a new run"
    )


def _as_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
