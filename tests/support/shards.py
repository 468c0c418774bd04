"""Tar archives in the layout of WebDataset for tests."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path


def write_shard(
    path: Path,
    members: Iterable[tuple[str, bytes]],
    mode: str = "w",
    extra: Iterable[tarfile.TarInfo] = (),
) -> Path:
    """An archive of members, given by name and content, and of further headers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for entry in extra:
            tar.addfile(entry)
    return path


def folder_members(split: Path, label: str = "cls") -> list[tuple[str, bytes]]:
    """The images of ``<split>/<class>/*`` and their labels, in the order of an image folder."""
    members = []
    for folder in sorted(split.iterdir()):
        for file in sorted(folder.iterdir()):
            key = f"{folder.name}_{file.stem}"
            members.append((f"{key}{file.suffix}", file.read_bytes()))
            members.append((f"{key}.{label}", folder.name.encode()))
    return members


def pack_folder(root: Path, target: Path, shards: int = 2) -> Path:
    """Shards of the images of ``<root>/train`` and ``<root>/test``, in their order."""
    for split in ("train", "test"):
        members = folder_members(root / split)
        samples = len(members) // 2
        for shard in range(shards):
            first, last = (2 * (samples * (shard + i) // shards) for i in (0, 1))
            write_shard(target / f"{split}-{shard:03d}.tar", members[first:last])
    return target
