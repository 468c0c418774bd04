"""Downloading, verifying and atomically unpacking published archives."""

import shutil
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile

from filelock import FileLock
from torchvision.datasets.utils import download_and_extract_archive

from cwx.storage.regular_files import check_regular


@dataclass(frozen=True)
class Archive:
    """A zip file and the part of it that a data set needs.

    Args:
        url: the address of the file.
        md5: checksum of the file; a file with another checksum is never unpacked.
        part: path of a folder or file inside the archive.
    """

    url: str
    md5: str
    part: str

    def manual_steps(self, destination: Path, archives: Path) -> str:
        """How the user puts the part at `destination` by hand, for error messages."""
        name = self.url.rpartition("/")[2]
        return (
            f"fetch {self.url}; unpack it and place its {self.part} as {destination}, or place the "
            f"file (MD5 {self.md5}) as {archives / name} and set data.source.download=true"
        )


def is_present(path: Path) -> bool:
    """Whether a file or a non-empty folder exists at `path`."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def fetch(archive: Archive, destination: Path, archives: Path) -> None:
    """Put the archive's part at `destination`, unless something is there already.

    Args:
        destination: path of the unpacked part.
        archives: folder of the archive file, which is downloaded if missing, and stays.

    Raises:
        ValueError: the download or the unpacking failed; the message lists the manual steps.
    """
    if is_present(destination):
        return
    name = archive.url.rpartition("/")[2]
    try:
        if (archives / name).exists():
            # Computing the checksum of a named pipe would wait for its writer.
            check_regular(archives / name)
        for folder in (destination.parent, archives):
            folder.mkdir(parents=True, exist_ok=True)
        with FileLock(archives / f".{archive.md5}.lock"):
            if not is_present(destination):
                _unpack(archive, destination, archives)
    except (OSError, RuntimeError, HTTPException, BadZipFile) as error:
        raise ValueError(
            f"there is no {destination} and {archive.url} could not be fetched ({error}): "
            f"{archive.manual_steps(destination, archives)}"
        ) from error


def _unpack(archive: Archive, destination: Path, archives: Path) -> None:
    # Unpack into a temporary folder, then move: an interrupted run leaves no partial data set.
    prefix = f".unpacking-{archive.md5}-"
    for left in destination.parent.glob(f"{prefix}*"):
        # Of a process that was killed; the lock of the archive is held.
        shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(dir=destination.parent, prefix=prefix) as temporary:
        download_and_extract_archive(
            archive.url, download_root=archives, extract_root=temporary, md5=archive.md5
        )
        (Path(temporary) / archive.part).rename(destination)
