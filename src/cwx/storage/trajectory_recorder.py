"""Recording the trajectory of any training loop of torch, in the format of the store.

A recording has the files of an entry of the store (`cwx.storage.trajectories`), in a folder of any
name. Its ``identity.json`` has the names and shapes of the tensors and, once it is complete, the
SHA-256 of each state.
"""

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cwx.errors import UserError
from cwx.storage.json_files import read_object
from cwx.storage.plain_state import plain_state
from cwx.storage.regular_files import check_regular, digest_regular
from cwx.storage.tensor_shapes import difference
from cwx.storage.trajectories import Recorder, format_epochs

log = logging.getLogger(__name__)

_KEY = "recording"
_STATE = re.compile(r"state-(\d{4,})\.safetensors")


class TrajectoryRecorder:
    """Records a network before its training and after each epoch, as an expert of CWX.

    The folder is then a value of ``experts.trajectories``. A recording can be continued: the first
    state that is recorded into a folder with states must be one of them, unless its `epoch` is
    stated. Under ``torch.distributed``, the process of rank 0 writes; the others do nothing.

    Use it as a context manager, or call `close` at the end. After an exception or a kill, the
    states so far are intact, and the recording is not complete until it is continued and closed.

    >>> import cwx, tempfile, torch
    >>> folder, network = tempfile.mkdtemp(), torch.nn.Linear(2, 3)
    >>> with cwx.TrajectoryRecorder(folder) as recorder:
    ...     recorder.record(network)  # epoch 0: the initial weights
    ...     for epoch in range(2):
    ...         _ = network.weight.data.mul_(0.5)  # one epoch of training
    ...         recorder.record(network, accuracy=0.5)
    >>> recorder.epochs
    (0, 1, 2)

    Args:
        folder: of this recording alone; created if it is missing.

    Raises:
        UserError: the folder holds a network that was not recorded by this class, or is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        # The last epoch that this object recorded.
        self._last: int | None = None
        self._lock: FileLock | None = None
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{folder} is not a folder: record into another path")
        self._tensors = self._read_kind()

    @property
    def epochs(self) -> tuple[int, ...]:
        """The recorded epochs, in ascending order."""
        return tuple(recorded_files(self.folder))

    def record(
        self, network: nn.Module, *, epoch: int | None = None, accuracy: float = math.nan
    ) -> None:
        """Record the parameters and buffers of `network`, under the names of the plain network.

        DataParallel, DistributedDataParallel and ``torch.compile`` may wrap the network or parts of
        it. Floats of 64 bits are stored in 32; other tensors keep their type.

        Args:
            network: on any device; it is not changed.
            epoch: the number of epochs trained; by default 0 for the first state, then one more
                each time. Later epochs, of a training that went back to this one, are deleted.
            accuracy: test accuracy of this state, in 0-1; NaN if unknown.

        Raises:
            UserError: `network` differs from the recorded one in the name, shape or type of a
                tensor; the folder has another training; a weight is not finite, or not in a plain
                tensor (such as those of FSDP); `epoch` or `accuracy` is impossible; or another
                process records into the folder.
            OSError: the folder cannot be written.
        """
        if epoch is not None and (type(epoch) is not int or epoch < 0):
            raise UserError(f"epoch is {epoch!r}: give the number of epochs trained, 0 or more")
        accuracy = float(accuracy)
        if not (math.isnan(accuracy) or 0 <= accuracy <= 1):
            raise UserError(f"accuracy is {accuracy:g}: give a fraction in 0-1, or leave it out")
        state = plain_state(network)
        if not _is_rank_zero():
            return
        self._open(state)
        number = self._number(state) if epoch is None else epoch
        if not self._go_back(number, state):
            self._recorder().record(number, state, accuracy)
        self._last = number

    def close(self) -> None:
        """Complete the recording; recording again continues it.

        Raises:
            UserError: nothing was recorded.
        """
        if not _is_rank_zero():
            return
        if not (files := recorded_files(self.folder)):
            raise UserError(
                f"nothing was recorded into {self.folder}: call record(network) before the "
                "training and after each epoch"
            )
        self._acquire()
        states = {str(epoch): digest_regular(file) for epoch, file in files.items()}
        recorder = self._recorder(states)
        recorder.start()
        recorder.complete([*files])
        self._release()

    def continue_within(self, epoch: int) -> None:
        """Continue a training that was interrupted after `epoch`, within the next epoch.

        Raises:
            UserError: the epoch is not recorded.
        """
        if epoch not in self.epochs:
            raise UserError(
                f"epoch {epoch} is not recorded in {self.folder} ({format_epochs(self.epochs)}): "
                "continue from a checkpoint of the recorded training"
            )
        self._last = epoch

    def interrupt(self) -> None:
        """Leave the recording incomplete; another recorder may continue it."""
        self._release()
        if self._last is not None:
            log.warning("%s is not complete: its training was interrupted", self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.interrupt()

    def _recorder(self, states: Mapping[str, str] | None = None) -> Recorder:
        identity = {_KEY: {"tensors": self._tensors, "states": states or {}}}
        return Recorder(self.folder, identity)

    def _read_kind(self) -> dict[str, str]:
        """The type and shape of each recorded tensor; empty for a new folder."""
        file = self.folder / "identity.json"
        if not file.exists():
            if recorded_files(self.folder):
                raise UserError(f"{self.folder} has states but no {file.name}: record elsewhere")
            return {}
        try:
            recording = read_object(file).get(_KEY)
        except (OSError, ValueError) as error:
            raise UserError(f"{file} is damaged ({error}): record into another folder") from error
        tensors = recording.get("tensors") if isinstance(recording, Mapping) else None
        if not isinstance(tensors, dict):
            raise UserError(
                f"{self.folder} holds a network that a study trained or imported: record into "
                "another folder"
            )
        return tensors

    def _open(self, state: Mapping[str, Tensor]) -> None:
        """Lock the folder and compare the network; a new folder gets its identity."""
        self._acquire()
        kind = {name: f"{t.dtype} {list(t.shape)}" for name, t in state.items()}
        if self._tensors and (mismatch := difference(kind, self._tensors)):
            raise UserError(
                f"{self.folder} has the trajectory of another network: {mismatch}; record into "
                "another folder"
            )
        if not self._tensors:
            self._tensors = kind
            self._recorder().start()

    def _acquire(self) -> None:
        if self._lock is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"another recorder writes {self.folder}: close it, or record into another folder"
            ) from None
        self._lock = lock
        for part in self.folder.glob(".*.part"):
            # Of a process that was killed while it wrote.
            part.unlink()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _number(self, state: Mapping[str, Tensor]) -> int:
        if self._last is not None:
            return self._last + 1
        files = recorded_files(self.folder)
        if not files:
            return 0
        for epoch in reversed([*files]):
            if self._is_recorded(epoch, state):
                return epoch
        raise self._refusal(files)

    def _refusal(self, files: Mapping[int, Path]) -> UserError:
        return UserError(
            f"{self.folder} has epochs {format_epochs(files)} of a training, and this state is "
            "none of them: to continue, first record the weights that the training continues "
            f"from, or state the number of epochs trained, such as epoch={max(files) + 1}; record "
            "another training into another folder"
        )

    def _go_back(self, epoch: int, state: Mapping[str, Tensor]) -> bool:
        """Delete the recorded epochs after `epoch`; whether `state` is recorded as `epoch`."""
        files = recorded_files(self.folder)
        is_recorded = epoch in files and self._is_recorded(epoch, state)
        # Without a match so far, this may be any training.
        known = files if self._last is None else [*files][:1]
        if not is_recorded and epoch <= max(known, default=-1):
            raise self._refusal(files)
        later = [
            number for number in files if number > epoch or (number == epoch and not is_recorded)
        ]
        if later or not is_recorded:
            # Before any change of the states that it lists.
            (self.folder / "complete.json").unlink(missing_ok=True)
        if later:
            log.warning("%s: epochs %s are recorded anew", self.folder, format_epochs(later))
        for number in reversed(later):
            files[number].unlink()
        return is_recorded

    def _is_recorded(self, epoch: int, state: Mapping[str, Tensor]) -> bool:
        file = recorded_files(self.folder)[epoch]
        try:
            check_regular(file)
            recorded = load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{file} is damaged ({error}): delete it and the epochs after it"
            ) from error
        return recorded.keys() == state.keys() and all(
            torch.equal(tensor, recorded[name]) for name, tensor in state.items()
        )


def recorded_files(folder: Path) -> dict[int, Path]:
    """The files of states in a folder, by epoch, in ascending order."""
    names = ((_STATE.fullmatch(file.name), file) for file in folder.glob("state-*"))
    return dict(sorted((int(match[1]), file) for match, file in names if match))


def recorded_digests(identity: Mapping[str, Any]) -> Mapping[str, str] | None:
    """The SHA-256 of each state by epoch, of a recording's identity; ``None`` of another."""
    recording = identity.get(_KEY)
    states = recording.get("states") if isinstance(recording, Mapping) else None
    return states if isinstance(states, Mapping) else None


def _is_rank_zero() -> bool:
    distributed = torch.distributed
    is_parallel = distributed.is_available() and distributed.is_initialized()
    return not is_parallel or distributed.get_rank() == 0
