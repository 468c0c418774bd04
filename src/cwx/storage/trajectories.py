"""The store of expert weights: one folder per expert, one safetensors file per recorded epoch.

The digest of an expert's identity (data, network, recipe and seed) names its folder,
``<root>/<digest>/``, which contains

    identity.json              the identity in full
    uses.json                  the runs that used it, and the time of their last use
    state-0000.safetensors …   the initial weights, then one state per epoch, with its accuracy
    complete.json              written last: the recorded epochs
    checkpoint-….ckpt          during training, in the folder of one of the experts trained jointly
"""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cwx.storage.atomic import write_json, write_tensors
from cwx.storage.finite_weights import first_non_finite
from cwx.storage.json_files import read_object
from cwx.storage.locks import acquire
from cwx.storage.regular_files import check_regular
from cwx.storage.store_entries import digest, record_use, remove_leftovers
from cwx.storage.tensor_shapes import Shapes, difference, shapes

log = logging.getLogger(__name__)

Identity = Mapping[str, Any]


class Trajectory:
    """The recorded states among θ_0 … θ_T of one expert, read from disk on access.

    Attributes:
        path: the folder of the expert.
        identity: the settings that determine the expert.
        recorded_epochs: the epochs with a stored state, in ascending order.
    """

    def __init__(self, path: Path) -> None:
        """Open the complete trajectory in the folder `path`.

        Raises:
            ValueError: the folder has no complete trajectory.
        """
        self.path = path
        try:
            self.identity: dict[str, Any] = read_object(path / "identity.json")
            self.recorded_epochs = _epochs(read_object(path / "complete.json"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{path} is not a complete trajectory ({error}): delete the folder to train it "
                "again, or name a folder of the store"
            ) from error

    @property
    def epochs(self) -> int:
        """T, the number of epochs trained: the last recorded epoch."""
        return self.recorded_epochs[-1]

    def state(self, epoch: int, device: str = "cpu") -> dict[str, Tensor]:
        """θ_epoch by parameter name, with buffers; 16-bit floats are converted to float32.

        Raises:
            ValueError: the epoch was not recorded, or its file is damaged.
        """
        with self._open(epoch, device) as file:
            return {name: _to_float32(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118

    def accuracy(self, epoch: int) -> float:
        """Test accuracy in 0-1 of θ_epoch before rounding to the stored dtype; NaN if unknown.

        Raises:
            ValueError: as `state`, or the file states no accuracy.
        """
        with self._open(epoch) as file:
            text = (file.metadata() or {}).get("accuracy", "")
        try:
            accuracy = float(text)
        except ValueError:
            accuracy = math.inf
        if not (math.isnan(accuracy) or 0 <= accuracy <= 1):
            raise ValueError(
                f"{self.path / state_name(epoch)} is damaged (its accuracy is {text[:40]!r}): "
                f"delete the folder {self.path} to train the expert again"
            )
        return accuracy

    def require(self, epoch: int) -> None:
        """Check that an epoch was recorded.

        Raises:
            ValueError: it was not; the message lists the recorded epochs.
        """
        if epoch not in self.recorded_epochs:
            setting = "recipe.epochs" if epoch > self.epochs else "recipe.recording.epochs"
            raise ValueError(
                f"epoch {epoch} is not among those recorded in {self.path} "
                f"({format_epochs(self.recorded_epochs)}): choose one of these, or raise {setting}"
            )

    @contextmanager
    def _open(self, epoch: int, device: str = "cpu") -> Iterator[Any]:
        self.require(epoch)
        file = self.path / state_name(epoch)
        try:
            check_regular(file)
            with safe_open(file, framework="pt", device=device) as opened:
                yield opened
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{file} is damaged or missing ({error}): delete the folder {self.path} to train "
                "the expert again"
            ) from error

    def check(self, network: nn.Module) -> None:
        """Check that the parameters of `network` have the same names and shapes.

        Buffers may be absent from the stored states.

        Raises:
            ValueError: the parameters differ; the message names the first difference.
        """
        for epoch in self.recorded_epochs:
            with self._open(epoch) as file:
                saved = {n: tuple(file.get_slice(n).get_shape()) for n in file.keys()}  # noqa: SIM118
            self._compare(network, saved, epoch)

    def is_complete_for(self, network: nn.Module) -> bool:
        """Whether the stored states have the buffers of `network`, such as running statistics."""
        with self._open(self.recorded_epochs[-1]) as file:
            return network.state_dict().keys() <= set(file.keys())

    def load_into(self, network: nn.Module, epoch: int) -> None:
        """Load the weights θ_epoch into `network`.

        Raises:
            ValueError: the states belong to another network (the message names the first
                difference), lack its buffers, or have weights that are not finite.
        """
        state = self.state(epoch)
        self._compare(network, shapes(state.items()), epoch)
        if missing := [name for name in network.state_dict() if name not in state]:
            raise ValueError(
                f"{self.path} was recorded for another network: it has no {missing[0]}; imported "
                "buffers hold parameters only, so a network with running statistics can be "
                "distilled from them but not evaluated: choose a network without running "
                "statistics, or train it here (experts.seeds)"
            )
        if spoilt := first_non_finite(state):
            raise ValueError(
                f"epoch {epoch} of {self.path} has weights that are not finite ({spoilt}): its "
                "training diverged; delete the folder to train it again, or lower the learning rate"
            )
        network.load_state_dict(state)

    def _compare(self, network: nn.Module, stored: Shapes, epoch: int) -> None:
        parameters = {name for name, _ in network.named_parameters()}
        expected = shapes(network.state_dict().items())
        needed = {n: shape for n, shape in expected.items() if n in parameters or n in stored}
        if mismatch := difference(needed, stored):
            raise ValueError(
                f"epoch {epoch} of {self.path} was recorded for another network: {mismatch}; "
                "choose the network it was trained as, or leave experts.trajectories empty to "
                "train new experts"
            )


class TrajectoryStore:
    """Finds experts on disk by identity.

    Args:
        root: the folder of the store.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._user: tuple[Path, Mapping[str, str]] | None = None

    def set_user(self, run: Path, description: Mapping[str, str]) -> None:
        """Record the run as a user of all entries that are locked from now on.

        Args:
            run: the folder of the run.
            description: of the run, for listings of the store.
        """
        self._user = (run, description)

    def path(self, identity: Identity) -> Path:
        return self.root / digest(identity)

    def find(self, identity: Identity) -> Trajectory | None:
        path = self.path(identity)
        return Trajectory(path) if (path / "complete.json").exists() else None

    @contextmanager
    def lock(self, identity: Identity, waiting: str) -> Iterator[None]:
        """Hold the lock of the entry for this identity; wait while another job holds it.

        What killed processes have left in the entry is removed first.

        Args:
            waiting: log line, if the lock is not free.

        Raises:
            ValueError: the folder of the entry cannot be created.
        """
        path = self.path(identity)
        lock = FileLock(path / "lock")
        try:
            path.mkdir(parents=True, exist_ok=True)
            acquire(lock, waiting)
        except OSError as error:
            if not (path / "complete.json").exists():
                raise ValueError(
                    f"store is {self.root}, where {path.name} cannot be written "
                    f"({error.strerror}): name another folder by store=<folder>, or make it "
                    "writable"
                ) from error
            # A complete entry of a read-only store is only read.
            yield
            return
        try:
            self._record_use(path)
            remove_leftovers(path)
            yield
        finally:
            lock.release()

    def _record_use(self, path: Path) -> None:
        if self._user is None:
            return
        try:
            record_use(path, *self._user)
        except OSError as error:
            if not (path / "complete.json").exists():
                raise
            log.warning("the use of %s could not be recorded: %s", path, error)


class Recorder:
    """Writes one expert's states into its folder; call `complete` last."""

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path = path
        self.identity = identity

    def start(self) -> None:
        write_json(self.path / "identity.json", self.identity)

    def record(self, epoch: int, state: Mapping[str, Tensor], accuracy: float) -> None:
        write_tensors(self.path / state_name(epoch), state, {"accuracy": repr(accuracy)})

    def complete(self, epochs: Sequence[int]) -> None:
        write_json(self.path / "complete.json", {"epochs": list(epochs)})


def state_name(epoch: int) -> str:
    return f"state-{epoch:04d}.safetensors"


def format_epochs(epochs: Iterable[int]) -> str:
    """Epochs as text, with ranges.

    >>> format_epochs([0, 1, 2, 50])
    '0-2, 50'
    """
    spans: list[list[int]] = []
    for epoch in epochs:
        if spans and spans[-1][-1] == epoch - 1:
            spans[-1] = [spans[-1][0], epoch]
        else:
            spans.append([epoch])
    return ", ".join("-".join(map(str, span)) for span in spans)


def _epochs(complete: Mapping[str, Any]) -> tuple[int, ...]:
    epochs = complete.get("epochs")
    if not (isinstance(epochs, list) and epochs and all(type(epoch) is int for epoch in epochs)):
        raise ValueError("complete.json lists no epochs")
    if min(epochs) < 0 or len(set(epochs)) < len(epochs):
        raise ValueError("complete.json lists an epoch twice or a negative one")
    return tuple(sorted(epochs))


def _to_float32(tensor: Tensor) -> Tensor:
    narrow = tensor.is_floating_point() and tensor.element_size() < torch.float32.itemsize
    return tensor.float() if narrow else tensor
