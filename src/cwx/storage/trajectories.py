"""The store of expert weights: one folder an expert, one safetensors file a recorded epoch.

An expert is found by what it is: the digest of its identity (data, network, procedure and seed)
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cwx.storage.atomic import write_json, write_tensors
from cwx.storage.shapes import Shapes, difference, shapes
from cwx.storage.store_entries import digest, note_use

log = logging.getLogger(__name__)

Identity = Mapping[str, Any]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, init=False)
class Recording:
    """Which states of a training are kept, and how.

    Training never reads them back: what is left out or narrowed here does not alter it.

    Args:
        epochs: keeps θ_0 … θ_epochs and the last state, θ_T; ``None`` keeps all.
        dtype: of floating parameters on disk: float32, bfloat16 (a relative error up to 2⁻⁸) or
            float16 (up to 2⁻¹¹, for magnitudes from 6e-5 to 65504). The error is one of θ_k, not
            of the way θ_{k+N} − θ_k, which is shorter. Buffers stay as they are.
        images: how many test images, spread over all, the accuracy that is noted with each state
            is measured on; ``None`` for all.

    Raises:
        ValueError: `epochs` is negative, `dtype` is none of these or `images` is below 1.
    """

    epochs: int | None
    dtype: torch.dtype
    images: int | None

    def __init__(
        self,
        *,
        epochs: int | None = None,
        dtype: torch.dtype | str = torch.float32,
        images: int | None = None,
    ) -> None:
        if images is not None and images < 1:
            raise ValueError(
                f"procedure.recording.images is {images}: give 1 or more, or null for all"
            )
        if epochs is not None and epochs < 0:
            raise ValueError(
                f"procedure.recording.epochs is {epochs}: give 0 or more, or null to record all"
            )
        chosen = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
        if chosen not in _DTYPES.values():
            raise ValueError(
                f"procedure.recording.dtype is {dtype}: give one of {', '.join(_DTYPES)}"
            )
        object.__setattr__(self, "epochs", epochs)
        object.__setattr__(self, "dtype", chosen)
        object.__setattr__(self, "images", images)

    def kept(self, last: int) -> tuple[int, ...]:
        """The epochs kept of a training of `last` epochs, in order."""
        return tuple(
            epoch
            for epoch in range(last + 1)
            if self.epochs is None or epoch <= self.epochs or epoch == last
        )

    def state(self, network: nn.Module) -> dict[str, Tensor]:
        """The state of `network` as it is stored.

        Raises:
            ValueError: a finite weight is too large for the dtype.
        """
        parameters = {name for name, _ in network.named_parameters(remove_duplicate=False)}
        return {
            name: self._narrowed(name, tensor) if name in parameters else tensor
            for name, tensor in network.state_dict().items()
        }

    def _narrowed(self, name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or tensor.dtype == self.dtype:
            return tensor
        narrowed = tensor.to(self.dtype)
        if (narrowed.isinf() & tensor.isfinite()).any():
            raise ValueError(
                f"{name} has a weight of {tensor.abs().max():.3g}, too large for {self.dtype}: "
                "set procedure.recording.dtype to bfloat16 or float32"
            )
        return narrowed


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
            longer = "procedure.epochs" if epoch > self.epochs else "procedure.recording.epochs"
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
