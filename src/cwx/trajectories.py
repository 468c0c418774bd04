"""The store of expert weights: one folder an expert, one safetensors file a recorded epoch.

An expert is found by what it is: the digest of its identity (data, network, procedure and seed)
names its folder, ``<root>/<digest>/``, which holds

    identity.json              what it is, in full
    state-0000.safetensors …   the initial weights, then one state an epoch, with its accuracy
    complete.json              written last: the number of states
    checkpoint.ckpt            while it trains
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cwx.files import write_json, write_tensors

log = logging.getLogger(__name__)

Identity = Mapping[str, Any]


class Trajectory:
    """The recorded states θ_0 … θ_T of one expert, read from disk as they are asked for."""

    def __init__(self, path: Path) -> None:
        """Open the complete trajectory in the folder `path`.

        Raises:
            ValueError: the folder holds no complete trajectory.
        """
        self.path = path
        try:
            self.identity: dict[str, Any] = json.loads((path / "identity.json").read_text())
            self.states = int(json.loads((path / "complete.json").read_text())["states"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is not a complete trajectory ({error}): train it again, or name a "
                "folder of the store"
            ) from error

    @property
    def epochs(self) -> int:
        """T, the epochs trained; there are T + 1 states."""
        return self.states - 1

    def state(self, epoch: int, device: str = "cpu") -> dict[str, Tensor]:
        """θ_epoch by parameter name, buffers included.

        Raises:
            ValueError: the epoch was not recorded, or its file is damaged.
        """
        with self._open(epoch, device) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def accuracy(self, epoch: int) -> float:
        """Test accuracy of θ_epoch, in 0-1."""
        with self._open(epoch) as file:
            return float(file.metadata()["accuracy"])

    @contextmanager
    def _open(self, epoch: int, device: str = "cpu") -> Iterator[Any]:
        if not 0 <= epoch < self.states:
            raise ValueError(
                f"epoch {epoch} is not among the {self.epochs} recorded in {self.path}"
            )
        file = self.path / state_name(epoch)
        try:
            with safe_open(file, framework="pt", device=device) as opened:
                yield opened
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{file} is damaged or missing ({error}): delete the folder {self.path}, and the "
                "expert is trained again"
            ) from error

    def load_into(self, network: nn.Module, epoch: int) -> None:
        """Give `network` the weights θ_epoch.

        Raises:
            ValueError: the states were recorded for another network (names the difference).
        """
        state = self.state(epoch)
        if difference := _difference(network.state_dict(), state):
            raise ValueError(
                f"{self.path} was recorded for another network: {difference}; choose the network "
                "it was trained as, or leave experts.trajectories empty to train new experts"
            )
        network.load_state_dict(state)


class TrajectoryStore:
    """Experts on disk, found by identity."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, identity: Identity) -> Path:
        text = json.dumps(identity, sort_keys=True)
        return self.root / hashlib.sha256(text.encode()).hexdigest()[:20]

    def find(self, identity: Identity) -> Trajectory | None:
        path = self.path(identity)
        return Trajectory(path) if (path / "complete.json").exists() else None

    @contextmanager
    def lock(self, identity: Identity, waiting: str) -> Iterator[None]:
        """Hold the right to train this expert; while another job has it, wait.

        Args:
            waiting: logged once if there is something to wait for.
        """
        path = self.path(identity)
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("%s", waiting)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


class Recorder:
    """Writes one expert's states into its folder; the trajectory exists once `complete` has run."""

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path = path
        self.identity = identity

    def start(self) -> None:
        write_json(self.path / "identity.json", self.identity)

    def record(self, epoch: int, network: nn.Module, accuracy: float) -> None:
        write_tensors(
            self.path / state_name(epoch),
            network.state_dict(),
            {"accuracy": repr(accuracy)},
        )

    def complete(self, states: int) -> None:
        write_json(self.path / "complete.json", {"states": states})


def state_name(epoch: int) -> str:
    return f"state-{epoch:04d}.safetensors"


def _difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    for name, tensor in expected.items():
        if name not in found:
            return f"it has no {name}"
        if found[name].shape != tensor.shape:
            return f"{name} is {tuple(found[name].shape)} there, {tuple(tensor.shape)} here"
    extra = sorted(set(found) - set(expected))
    return f"it has {extra[0]}, unknown here" if extra else ""
