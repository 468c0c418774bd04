"""Runs and sweeps in a notebook: metrics as plain data, explanations as tensors, class figures.

import cwx

run = cwx.open_run("runs/digits/quickstart/2026-11-29_10-00-00")
run.metrics["fidelity/ratio"]
run.images("distill")["3"]           # [n, C, H, W] in 0-1
run.figure("3").savefig("three.png")

cwx.open_sweep("runs/cifar10/noise").frame()      # a pandas frame, if pandas is installed
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cwx.data.splits import ImageSet
from cwx.errors import UserError, did_you_mean
from cwx.explanations.drawing import sheet
from cwx.explanations.patterns import MethodOutput
from cwx.explanations.serialisation import read_explanations
from cwx.functional.class_names import ClassName, class_index
from cwx.functional.images import Normalization
from cwx.storage.csv_files import read_csv
from cwx.storage.json_files import parse_json
from cwx.storage.regular_files import check_regular
from cwx.storage.run_files import CLASSES, EXPLANATIONS, SAMPLES
from cwx.storage.runs import Run, find_runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Bytes and cells of a table that is read at once.
_MAX_BYTES, _MAX_CELLS = 2**28, 5_000_000


class OpenRun:
    """A run's results, each read from its folder when it is first asked for.

    Attributes:
        folder: of the run.
        state: ``finished``, ``running``, ``failed``, ``interrupted``, ``lost``, ``not started`` or
            ``damaged``.
        experiment: its name, with the scale if that is not the paper's.
        overrides: the settings that the run was started with, as ``key=value``.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.folder, self.state, self.experiment = run.folder, run.state, run.experiment
        self.overrides = run.overrides

    def __repr__(self) -> str:
        return f"<run {self.folder}: {self.experiment}, {self.state}, {len(self.metrics)} metrics>"

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """All finite metrics by name, such as ``fidelity/ratio``; empty until the run has ended."""
        return self._run.metrics

    @property
    def settings(self) -> Mapping[str, Any]:
        """The configuration of the run, nested; interpolations as they are written there."""
        return self._run.configuration

    @cached_property
    def classes(self) -> Sequence[str]:
        """The names of the classes by index.

        Raises:
            UserError: the run stopped before it wrote them.
        """
        rows = self.table(Path(CLASSES).stem)
        if any("class" not in row for row in rows):
            raise UserError(f"{self.folder / CLASSES} is damaged: it has no column class")
        return [row["class"] for row in rows]

    def table(self, name: str) -> list[dict[str, str]]:
        """A table of the run, such as ``fidelity``: a dictionary a row, cells as text.

        Raises:
            UserError: the run has no such table (names the most similar), or it is damaged.
        """
        tables = {path.stem: path for path in sorted(self.folder.glob("tables/*.csv"))}
        _require(name, tables, f"{self.folder} has no table")
        try:
            table = read_csv(tables[name], max_bytes=_MAX_BYTES, max_cells=_MAX_CELLS)
        except (OSError, ValueError) as error:
            raise UserError(f"{tables[name]} cannot be read: {error}") from error
        if table.left_out:
            raise UserError(f"{tables[name]} is too large to be read at once: read it by csv")
        return table.rows

    @cached_property
    def explanations(self) -> Mapping[str, MethodOutput]:
        """The output of each method that has finished, with ``labels`` that index `classes`.

        Images are normalised (`cwx.explanations.images.Explanations`); the other forms are those of
        `cwx.explanations.patterns.MethodOutput`.

        Raises:
            UserError: the file is damaged.
        """
        try:
            return read_explanations(self.folder / EXPLANATIONS)
        except ValueError as error:
            raise UserError(str(error)) from error

    def images(self, method: str) -> dict[str, Tensor]:
        """What a method shows of each class, unit images ``[n, C, H, W]`` in 0-1 by class name.

        Raises:
            UserError: no such method has finished; names the most similar.
        """
        _require(method, self.explanations, f"{self.folder} has no explanations of")
        try:
            shown = self.explanations[method].for_display(self.normalization)
        except RuntimeError as error:
            raise UserError(
                f"{self.folder} is damaged: the output of {method} and {SAMPLES} have different "
                f"shapes ({error})"
            ) from error
        return self._by_class(self.normalization.denormalize(shown.images), shown.labels)

    def real_images(self, kind: str = "real") -> dict[str, Tensor]:
        """Real images that the run kept of each class, unit images ``[n, C, H, W]`` by class name.

        Args:
            kind: ``real`` (test images), ``train`` (training images, as trained on) or ``mean``
                (the mean of each class).

        Raises:
            UserError: the run kept none of that kind.
        """
        kept, _ = self._samples
        _require(kind, kept, f"{self.folder} kept no images of kind")
        return self._by_class(kept[kind].images[:].float() / 255, kept[kind].labels)

    def figure(self, class_name: ClassName) -> "Figure":
        """Test images of one class beside what each method shows of it.

        Args:
            class_name: its name, or its index if no class is named by a number.

        Raises:
            UserError: there is no such class; names the most similar.
        """
        try:
            index = class_index(class_name, self.classes, "class_name")
        except ValueError as error:
            raise UserError(str(error)) from error
        name = self.classes[index]
        columns = {"test images": self.real_images()} if "real" in self._samples[0] else {}
        columns |= {method: self.images(method) for method in self.explanations}
        shown = {title: of[name] for title, of in columns.items() if name in of}
        if not shown:
            raise UserError(f"{self.folder} shows nothing of class {name!r}")
        labels = {title: torch.full((len(images),), index) for title, images in shown.items()}
        return sheet(shown, labels, self.classes)

    @cached_property
    def normalization(self) -> Normalization:
        """How pixels were normalised.

        Raises:
            UserError: the run stopped before it wrote that.
        """
        return self._samples[1]

    @cached_property
    def _samples(self) -> tuple[dict[str, ImageSet], Normalization]:
        file = self.folder / SAMPLES
        try:
            check_regular(file)
            with safe_open(file, framework="pt") as opened:
                header = opened.metadata() or {}
                parts = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            scales = Normalization(mean=_scales(header["mean"]), std=_scales(header["std"]))
            sets = {
                kind: _image_set(parts[f"{kind}/images"], parts[f"{kind}/labels"])
                for kind, _, name in (name.rpartition("/") for name in parts)
                if name == "images"
            }
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise UserError(
                f"{file} is missing or damaged ({error}): the run has not begun, or copy it again"
            ) from error
        return sets, scales

    def _by_class(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
            raise UserError(
                f"{self.folder} is damaged: labels lie in {int(labels.min())}-{int(labels.max())}, "
                f"and {CLASSES} names {len(self.classes)} classes"
            )
        return {self.classes[int(c)]: images[labels == c] for c in labels.unique()}


class OpenSweep(Sequence[OpenRun]):
    """The runs of a sweep, or of any folder, ordered by path."""

    def __init__(self, folder: Path, runs: Sequence[OpenRun]) -> None:
        self.folder, self._runs = folder, runs

    def __repr__(self) -> str:
        return f"<sweep {self.folder}: {len(self)} runs>"

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, index: Any) -> Any:
        return self._runs[index]

    def __iter__(self) -> Iterator[OpenRun]:
        return iter(self._runs)

    def rows(self) -> list[dict[str, str | float]]:
        """A dictionary a run: ``run``, ``experiment``, ``state``, swept settings, then metrics.

        A metric that a run lacks is NaN; a setting that a run lacks is an empty text.
        """
        swept = [dict(o.partition("=")[::2] for o in run._run.swept) for run in self]
        settings = list(dict.fromkeys(name for own in swept for name in own))
        metrics = list(dict.fromkeys(name for run in self for name in run.metrics))
        return [
            {"run": str(run.folder), "experiment": run.experiment, "state": run.state}
            | {name: own.get(name, "") for name in settings}
            | {name: run.metrics.get(name, math.nan) for name in metrics}
            for run, own in zip(self, swept, strict=True)
        ]

    def frame(self) -> Any:
        """`rows` as a pandas ``DataFrame``.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise UserError("pandas is not installed: pip install pandas, or use rows()") from error
        return pandas.DataFrame(self.rows())


def _scales(text: str) -> list[float]:
    """The value of each channel, in a JSON text."""
    values = parse_json(text)
    if not (isinstance(values, list) and all(isinstance(v, int | float) for v in values)):
        raise ValueError("mean and std are not lists of numbers")
    return [float(value) for value in values]


def _image_set(images: Tensor, labels: Tensor) -> ImageSet:
    if images.ndim != 4 or labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(f"images {list(images.shape)} have labels {list(labels.shape)}")
    return ImageSet(images, labels)


def open_run(folder: str | Path) -> OpenRun:
    """The run in `folder`.

    Raises:
        UserError: the folder is no run; says so if it is a sweep.
    """
    runs = _find(folder)
    if [run.folder for run in runs] != [Path(folder)]:
        inside = f"it holds {len(runs)} runs, such as {runs[0].folder}: open one of them, or "
        raise UserError(f"{folder} is not a single run: {inside}use cwx.open_sweep")
    return runs[0]


def open_sweep(folder: str | Path) -> OpenSweep:
    """All runs in and below `folder`.

    Raises:
        UserError: there is none.
    """
    return OpenSweep(Path(folder), _find(folder))


def _find(folder: str | Path) -> list[OpenRun]:
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"{folder} is not a folder: name one that a run or a sweep was written to")
    if not (runs := [OpenRun(run) for run in find_runs(path)]):
        raise UserError(f"there is no run in {folder}: name the folder of a run or of a sweep")
    return runs


def _require(name: str, known: Collection[str], lacking: str) -> None:
    if name not in known:
        listed = f"there are {', '.join(known)}" if known else "there are none"
        raise UserError(f"{lacking} {name!r}: {did_you_mean(name, known, listed)}")
