"""Published archives: what is wanted of them, fetched, checked and unpacked whole or not at all."""

from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile

from filelock import FileLock
from torchvision.datasets.utils import download_and_extract_archive


@dataclass(frozen=True)
class Archive:
    """A zip file and the part of it that is wanted.

    Args:
        md5: of the file; another one is never unpacked.
        part: path of a folder or file inside.
    """

    url: str
    md5: str
    part: str

    def placing(self, place: Path, archives: Path) -> str:
        """How the user brings the part to `place` by hand."""
        name = self.url.rpartition("/")[2]
        return (
            f"fetch {self.url}; unpack it and place its {self.part} as {place}, or place the "
            f"file (MD5 {self.md5}) as {archives / name} and set data.source.download=true"
        )


def is_there(place: Path) -> bool:
    """Whether a file or a folder that is not empty lies at `place`."""
    return place.is_file() or (place.is_dir() and any(place.iterdir()))


def fetch(archive: Archive, place: Path, archives: Path) -> None:
    """Bring the wanted part to `place`, unless something is there.

    Args:
        archives: where the archive itself lies, or is downloaded to and stays.

    Raises:
        ValueError: it could not be had, with what to place where.
    """
    if is_there(place):
        return
    try:
        for folder in (place.parent, archives):
            folder.mkdir(parents=True, exist_ok=True)
        with FileLock(archives / f".{archive.md5}.lock"):
            if not is_there(place):
                _unpack(archive, place, archives)
    except (OSError, RuntimeError, HTTPException, BadZipFile) as error:
        raise ValueError(
            f"there is no {place} and {archive.url} could not be fetched ({error}): "
            f"{archive.placing(place, archives)}"
        ) from error


def _unpack(archive: Archive, place: Path, archives: Path) -> None:
    # Aside, then moved: an interrupted run leaves nothing that looks whole.
    with TemporaryDirectory(dir=place.parent, prefix=".unpacking-") as aside:
        download_and_extract_archive(
            archive.url, download_root=archives, extract_root=aside, md5=archive.md5
        )
        (Path(aside) / archive.part).rename(place)
