"""The store of expert weights: one folder an expert, one safetensors file a recorded epoch.

An expert is found by what it is: the digest of its identity (data, network, recipe and seed)
names its folder, ``<root>/<digest>/``, which holds

    identity.json              what it is, in full
    uses.json                  which runs took it, and when last
    state-0000.safetensors …   the initial weights, then one state an epoch, with its accuracy
    complete.json              written last: the epochs recorded
    checkpoint-….ckpt          while it trains, in one folder of those that train together
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cwx.storage.atomic import write_json, write_tensors
from cwx.storage.store_entries import digest, note_use

log = logging.getLogger(__name__)

Identity = Mapping[str, Any]
Shapes = Mapping[str, tuple[int, ...]]


class Trajectory:
    """Recorded states of θ_0 … θ_T of one expert, read from disk as they are asked for.

    Attributes:
        recorded: the epochs that can be asked for, in order.
    """

    def __init__(self, path: Path) -> None:
        """Open the complete trajectory in the folder `path`.

        Raises:
            ValueError: the folder holds no complete trajectory.
        """
        self.path = path
        try:
            self.identity: dict[str, Any] = json.loads((path / "identity.json").read_text())
            self.recorded = _epochs(json.loads((path / "complete.json").read_text()))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{path} is not a complete trajectory ({error}): delete the folder to train it "
                "again, or name a folder of the store"
            ) from error

    @property
    def epochs(self) -> int:
        """T, the epochs trained, the last of those recorded."""
        return self.recorded[-1]

    def state(self, epoch: int, device: str = "cpu") -> dict[str, Tensor]:
        """θ_epoch by parameter name, buffers included; float32 if it is stored narrower.

        Raises:
            ValueError: the epoch was not recorded, or its file is damaged.
        """
        with self._open(epoch, device) as file:
            return {name: _widened(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118

    def accuracy(self, epoch: int) -> float:
        """Test accuracy in 0-1 of θ_epoch as trained, before narrowing; NaN where unknown."""
        with self._open(epoch) as file:
            return float(file.metadata()["accuracy"])

    def require(self, epoch: int) -> None:
        """Refuse an epoch that was not recorded.

        Raises:
            ValueError: with those that were.
        """
        if epoch not in self.recorded:
            longer = "recipe.epochs" if epoch > self.epochs else "recipe.recording.epochs"
            raise ValueError(
                f"epoch {epoch} is not among those recorded in {self.path} "
                f"({listed(self.recorded)}): choose one of these, or raise {longer}"
            )

    @contextmanager
    def _open(self, epoch: int, device: str = "cpu") -> Iterator[Any]:
        self.require(epoch)
        file = self.path / state_name(epoch)
        try:
            with safe_open(file, framework="pt", device=device) as opened:
                yield opened
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{file} is damaged or missing ({error}): delete the folder {self.path}, and the "
                "expert is trained again"
            ) from error

    def check(self, network: nn.Module) -> None:
        """Refuse a network whose parameters differ in name or shape; buffers may be absent.

        Raises:
            ValueError: names the first difference.
        """
        with self._open(self.recorded[0]) as file:
            self._compare(
                network,
                {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()},  # noqa: SIM118
            )

    def load_into(self, network: nn.Module, epoch: int) -> None:
        """Give `network` the weights θ_epoch.

        Raises:
            ValueError: the states were recorded for another network (names the difference), or
                lack its buffers.
        """
        state = self.state(epoch)
        self._compare(network, shapes(state.items()))
        if missing := [name for name in network.state_dict() if name not in state]:
            raise ValueError(
                f"{self.path} was recorded for another network: it has no {missing[0]}; imported "
                "buffers hold parameters alone, so that a network with running statistics can be "
                "distilled from them but not evaluated: choose a network without, or train it "
                "here (experts.seeds)"
            )
        network.load_state_dict(state)

    def _compare(self, network: nn.Module, found: Shapes) -> None:
        parameters = {name for name, _ in network.named_parameters()}
        expected = shapes(network.state_dict().items())
        needed = {n: shape for n, shape in expected.items() if n in parameters or n in found}
        if unlike := difference(needed, found):
            raise ValueError(
                f"{self.path} was recorded for another network: {unlike}; choose the network "
                "it was trained as, or leave experts.trajectories empty to train new experts"
            )


class TrajectoryStore:
    """Experts on disk, found by identity."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._user: tuple[Path, Mapping[str, str]] | None = None

    def used_by(self, run: Path, about: Mapping[str, str]) -> None:
        """Note with all that is taken from now on that the run in this folder took it.

        Args:
            about: words for who looks at the store.
        """
        self._user = (run, about)

    def path(self, identity: Identity) -> Path:
        return self.root / digest(identity)

    def find(self, identity: Identity) -> Trajectory | None:
        path = self.path(identity)
        return Trajectory(path) if (path / "complete.json").exists() else None

    @contextmanager
    def lock(self, identity: Identity, waiting: str) -> Iterator[None]:
        """Hold the right to make what has this identity; while another job has it, wait.

        Args:
            waiting: logged once if there is something to wait for.

        Raises:
            ValueError: nothing can be written there.
        """
        path = self.path(identity)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"store is {self.root}, where {path.name} cannot be made ({error.strerror}): name "
                "another folder by store=<folder>"
            ) from error
        lock = FileLock(path / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("%s", waiting)
            lock.acquire()
        try:
            if self._user is not None:
                note_use(path, *self._user)
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

    def record(self, epoch: int, state: Mapping[str, Tensor], accuracy: float) -> None:
        write_tensors(self.path / state_name(epoch), state, {"accuracy": repr(accuracy)})

    def complete(self, epochs: Sequence[int]) -> None:
        write_json(self.path / "complete.json", {"epochs": list(epochs)})


def state_name(epoch: int) -> str:
    return f"state-{epoch:04d}.safetensors"


def listed(epochs: Iterable[int]) -> str:
    """Epochs as a reader writes them.

    >>> listed([0, 1, 2, 50])
    '0-2, 50'
    """
    spans: list[list[int]] = []
    for epoch in epochs:
        if spans and spans[-1][-1] == epoch - 1:
            spans[-1] = [spans[-1][0], epoch]
        else:
            spans.append([epoch])
    return ", ".join("-".join(map(str, span)) for span in spans)


def _epochs(complete: Any) -> tuple[int, ...]:
    epochs = complete.get("epochs") if isinstance(complete, dict) else None
    if not (isinstance(epochs, list) and epochs and all(type(epoch) is int for epoch in epochs)):
        raise ValueError("complete.json lists no epochs")
    return tuple(sorted(epochs))


def _widened(tensor: Tensor) -> Tensor:
    narrow = tensor.is_floating_point() and tensor.element_size() < torch.float32.itemsize
    return tensor.float() if narrow else tensor


def shapes(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors}


def difference(expected: Shapes, found: Shapes) -> str:
    """The first tensor that differs, in words; empty if none does."""
    for name, shape in expected.items():
        if name not in found:
            return f"it has no {name}"
        if found[name] != shape:
            return f"{name} is {found[name]} there, {shape} here"
    extra = sorted(set(found) - set(expected))
    return f"it has {extra[0]}, unknown here" if extra else ""
