"""The fingerprints of everything that a run reads, by which ``resume=`` refuses other inputs.

inputs.json  per input: its fingerprint, and the settings with which other jobs of a sweep read it
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cwx.storage.atomic import write_json
from cwx.storage.json_files import read_object
from cwx.storage.regular_files import digest_regular
from cwx.storage.run_files import EXPLANATIONS, INPUTS, METRICS
from cwx.storage.run_folders import sweep_of
from cwx.storage.store_entries import digest

_NETWORK = "training of "
# In bytes; an entry has about 200.
_MAX_SIZE = 2**24


class ChangedInputError(ValueError):
    """A run would continue with other inputs than those of its results."""


class RunInputs:
    """Records each input of a run when it is read for the first time, and refuses another later.

    Jobs of one sweep that read with the same settings must read the same.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._file = folder, folder / INPUTS
        self._identities: dict[str, list[str]] = {}

    def start(self, *, resumed: bool) -> None:
        """Forget the inputs of an earlier start that left no results: nothing depends on them."""
        if not resumed or not _has_results(self.folder):
            self._file.unlink(missing_ok=True)

    def check(self, name: str, fingerprint: str, *, settings: str | None = None) -> None:
        """Record an input, or compare it with the record.

        Args:
            name: of the input, in error messages.
            fingerprint: a digest of its content.
            settings: a digest of all settings that choose the input; jobs of a sweep with equal
                settings must find equal inputs. ``None``: each job may have its own.

        Raises:
            ChangedInputError: another was recorded, by this run or by a job of its sweep.
        """
        records = _read(self._file)
        if (record := records.get(name)) is not None:
            if record["fingerprint"] != fingerprint:
                raise ChangedInputError(
                    f"{name} changed since {self.folder} was started, whose results are of the "
                    f"earlier content: restore it and continue with resume={self.folder}, or "
                    "start the study anew"
                )
            return
        if settings is not None:
            self._compare_with_sweep(name, fingerprint, settings)
        entry = {"fingerprint": fingerprint, "settings": settings}
        write_json(self._file, {**records, name: entry})

    def check_file(self, setting: str, path: Path) -> None:
        """`check` of the bytes of a file, which a setting names."""
        name = f"the file {path} ({setting})"
        self.check(name, digest_regular(path), settings=digest({setting: str(path.absolute())}))

    def check_identity(self, stage: str, identity: Mapping[str, Any]) -> None:
        """`check` of the identity of a training, before it begins."""
        # Two stages of one name have their numbers, in their order.
        seen, key = self._identities.setdefault(stage, []), digest(identity)
        if key not in seen:
            seen.append(key)
        number = seen.index(key)
        suffix = f" (number {number + 1})" if number else ""
        self.check(f"{_NETWORK}{stage}{suffix}", key)

    def check_entry(self, name: str, folder: Path) -> None:
        """`check` of the tensors in a folder of the store."""
        content = hashlib.sha256()
        for path in sorted(folder.glob("*.safetensors")):
            content.update(bytes.fromhex(digest_regular(path)))
        label = f"the content of {folder} ({name})"
        self.check(label, content.hexdigest(), settings=digest({"folder": str(folder.absolute())}))

    def _compare_with_sweep(self, name: str, fingerprint: str, settings: str) -> None:
        for job in _other_jobs(self.folder):
            record = _read(job / INPUTS).get(name)
            same_settings = record is not None and record["settings"] == settings
            if record is not None and same_settings and record["fingerprint"] != fingerprint:
                raise ChangedInputError(
                    f"{name} changed since {job} of the same sweep was started: restore it and "
                    "continue the sweep, or start the sweep anew"
                )


def _other_jobs(folder: Path) -> Iterator[Path]:
    """The other jobs of the run's sweep that have results."""
    if (sweep := sweep_of(folder)) is None:
        return
    files: Iterable[Path] = [*sweep.glob(f"*/{INPUTS}"), *sweep.glob(f"*/*/{INPUTS}")]
    for file in files:
        if file.parent.resolve() != folder.resolve() and _has_results(file.parent):
            yield file.parent


def _has_results(folder: Path) -> bool:
    files = (folder / EXPLANATIONS, folder / METRICS)
    trained = any(name.startswith(_NETWORK) for name in _read(folder / INPUTS))
    return trained or any(file.exists() for file in files) or any(folder.glob("checkpoints/*.ckpt"))


def _read(file: Path) -> dict[str, dict[str, Any]]:
    if not file.exists():
        return {}
    try:
        records = read_object(file, _MAX_SIZE)
        for record in records.values():
            if not {"fingerprint", "settings"} <= record.keys():
                raise ValueError("no record")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{file} is damaged ({type(error).__name__}), so that the inputs of the run cannot be "
            "compared: restore it, or start the study anew"
        ) from error
    return dict(records)
