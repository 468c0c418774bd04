"""A data source of data sets of Hugging Face, read by the package `datasets`."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from cwx.data.datasets.labelled_images import (
    ImageSettings,
    LabelledImages,
    LabelledImageSource,
    LabelledSplits,
)
from cwx.data.image_tables import ImageTable, ImageTables, TableImage
from cwx.data.label_text import as_label
from cwx.errors import did_you_mean, printable
from cwx.functional.class_names import ClassName

log = logging.getLogger(__name__)


class HuggingFace(LabelledImageSource):
    """Images in the rows of a data set, with a column of labels; needs the extra `huggingface`.

    No code of the data set is run: versions of `datasets` that could are refused.

    Args:
        dataset: a folder that `save_to_disk` has written, a folder of Parquet or Arrow files with
            the images in them, or a name on the hub such as ``zalando-datasets/fashion_mnist``,
            which is downloaded.
        name: the configuration of a data set that has several; ``None`` for the only one.
        revision: a commit of a data set on the hub; ``None`` for the newest version.
        train, test: the names of the splits. `train` is ``None`` for test images only, for networks
            that were trained elsewhere.
        image, label: the names of the columns. A label is the name of a class or its index.
        classes: see `LabelledImageSource`; ``None`` for the names in a column of type `ClassLabel`.
        synsets: see `LabelledImageSource`.
        size, resize, interpolation, channels, background, white_level: see `ImageSettings`.
        cache: the folder of downloaded and converted files; ``None`` for that of `datasets`.
    """

    def __init__(
        self,
        *,
        dataset: str,
        name: str | None,
        revision: str | None,
        train: str | None,
        test: str,
        image: str,
        label: str,
        classes: str | Annotated[Sequence[ClassName], "not empty, distinct"] | None,
        size: Annotated[int, ">= 1, <= 4096"] | None,
        resize: Annotated[int, ">= 1, <= 4096"] | None,
        interpolation: str | None,
        channels: Annotated[int, ">= 1, <= 3"] | None,
        background: str | None,
        white_level: Annotated[float, "> 0, <= 4294967295"] | None,
        synsets: Mapping[ClassName, str] | None,
        cache: str | None,
    ) -> None:
        pixels = ImageSettings(size, resize, interpolation, channels, background, white_level)
        super().__init__(pixels, classes, synsets)
        if train == test:
            raise ValueError(
                f"data.source.train and data.source.test are both {test}: networks would be tested "
                "on the images of their training; give each a split of its own"
            )
        self.dataset, self.name, self.revision, self.cache = dataset, name, revision, cache
        self.train, self.test, self.image, self.label = train, test, image, label

    def prepare(self) -> None:
        """Download a data set of the hub, and convert Parquet files."""
        self._splits()

    def labelled(self) -> LabelledSplits:
        splits = self._splits()
        tables: dict[str, ImageTable] = {}
        images: dict[str, LabelledImages] = {}
        classes: dict[str, Sequence[str] | None] = {}
        for setting, split in (("train", self.train), ("test", self.test)):
            if split is None:
                images[setting] = []
                continue
            rows = self._split(splits, split, setting)
            tables[split] = self._table(rows, split)
            labels, classes[setting] = self._labels(rows, split)
            images[setting] = [
                (TableImage(tables[split], row), text) for row, text in enumerate(labels)
            ]
        container = ImageTables(Path(self.dataset), tables)
        names = classes["train" if self.train is not None else "test"]
        return LabelledSplits(container, images["train"], images["test"], names)

    def _splits(self) -> Mapping[str, Any]:
        """The splits as `datasets.Dataset`, by name."""
        package, folder = _package(), Path(self.dataset)
        is_saved = (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()
        self._check_unread(is_saved, folder.is_dir())
        try:
            if is_saved:
                loaded = package.load_from_disk(str(folder), keep_in_memory=False)
            else:
                loaded = package.load_dataset(
                    self.dataset,
                    name=self.name,
                    revision=self.revision,
                    cache_dir=self.cache,
                    keep_in_memory=False,
                )
        except Exception as error:
            # The package, its file systems and Arrow raise errors of many kinds.
            raise ValueError(self._refusal(error)) from error
        if isinstance(loaded, Mapping):
            return loaded
        return {str(loaded.split or "train"): loaded}

    def _check_unread(self, is_saved: bool, is_folder: bool) -> None:
        """Refuse settings that do not apply to this kind of data set, and would be ignored."""
        for key, value, applies, to in (
            ("name", self.name, not is_saved, "a folder that save_to_disk has not written"),
            ("revision", self.revision, not is_folder, "a data set on the hub"),
        ):
            if value is not None and not applies:
                raise ValueError(
                    f"data.source.{key} is {value}, which is of {to}, but data.source.dataset is "
                    f"the folder {printable(self.dataset)}: set data.source.{key}=null"
                )

    def _refusal(self, error: Exception) -> str:
        """Why the data set cannot be loaded, with the remedy."""
        name = printable(self.dataset)
        reason = printable((str(error).strip() or type(error).__name__).splitlines()[0])
        if isinstance(error, ConnectionError):
            return (
                f"the data set {name} is no folder here, and the hub cannot be reached ({reason}): "
                "check the connection; or download it elsewhere, by hf download --repo-type "
                "dataset, and set data.source.dataset to that folder"
            )
        configurations = self._configurations() if isinstance(error, ValueError) else []
        if configurations and self.name not in configurations:
            listed = f"there are {_names(dict.fromkeys(configurations))}"
            if self.name is None:
                return (
                    f"the data set {name} has several configurations and data.source.name is "
                    f"null: {listed}; set data.source.name to one of them"
                )
            remedy = did_you_mean(self.name, configurations, listed, prefix="data.source.name=")
            return f"the data set {name} has no configuration {self.name}: {remedy}"
        return (
            f"the data set {name} cannot be loaded ({reason}): set data.source.dataset to a "
            "folder that save_to_disk has written, to a folder of Parquet files, or to a name on "
            "the hub, with a connection"
        )

    def _configurations(self) -> list[str]:
        """The names of the configurations; empty if they are unknown."""
        try:
            names: list[str] = _package().get_dataset_config_names(
                self.dataset, revision=self.revision
            )
        except Exception as error:
            log.debug("the configurations of %s are unknown: %s", self.dataset, error)
            return []
        return names

    def _split(self, splits: Mapping[str, Any], split: str, setting: str) -> Any:
        """One split, whose columns are there."""
        if split not in splits:
            remedy = did_you_mean(
                split, splits, f"there are {_names(splits)}", prefix=f"data.source.{setting}="
            )
            raise ValueError(
                f"the data set {printable(self.dataset)} has no split {split}: {remedy}"
            )
        rows = splits[split]
        for column, key in ((self.image, "image"), (self.label, "label")):
            if column not in rows.features:
                remedy = did_you_mean(
                    column,
                    rows.features,
                    f"there are {_names(rows.features)}",
                    prefix=f"data.source.{key}=",
                )
                raise ValueError(
                    f"the split {split} of {printable(self.dataset)} has no column {column}: "
                    f"{remedy}"
                )
        if not len(rows):
            raise ValueError(
                f"the split {split} of {printable(self.dataset)} has no rows: set "
                f"data.source.{setting} to another"
            )
        return rows

    def _table(self, rows: Any, split: str) -> ImageTable:
        package = _package()
        images = rows.select_columns([self.image])
        kind = images.features[self.image]
        if isinstance(kind, package.Image):
            images = images.cast_column(self.image, package.Image(decode=False))
        elif not _holds_bytes(kind):
            raise ValueError(
                f"the column {self.image} of {printable(self.dataset)} has no images but "
                f"{printable(kind)}: set data.source.image to the column of the images"
            )
        files = [Path(file["filename"]) for file in rows.cache_files]
        if not files:
            raise ValueError(
                f"the data set {printable(self.dataset)} lies in memory: save it with save_to_disk "
                "and set data.source.dataset to that folder"
            )
        states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        digest = hashlib.sha256(repr((self.image, states)).encode()).digest()
        stamp = int.from_bytes(digest[:8], "big") >> 1
        return ImageTable(Path(self.dataset), split, self.image, images, stamp)

    def _labels(self, rows: Any, split: str) -> tuple[Sequence[str], Sequence[str] | None]:
        """The label of each row as text, and the names of the classes; ``None`` for unknown."""
        kind = rows.features[self.label]
        values = rows.select_columns([self.label])[:][self.label]
        names = list(kind.names) if isinstance(kind, _package().ClassLabel) else None
        labels = []
        for row, value in enumerate(values):
            try:
                labels.append(as_label(value if names is None else _class_name(value, names)))
            except ValueError as error:
                raise ValueError(
                    f"row {row} of {split} in {printable(self.dataset)} has no label in the column "
                    f"{self.label} (data.source.label): {error}"
                ) from error
        return labels, names


def _package() -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f"data=huggingface needs the package datasets ({printable(error)}): "
            "pip install 'cwx[huggingface]'"
        ) from error
    if int(datasets.__version__.split(".")[0]) < 4:
        raise ValueError(
            f"data=huggingface needs datasets 4 or newer, which runs no code of a data set, not "
            f"{datasets.__version__}: pip install 'cwx[huggingface]'"
        )
    package: ModuleType = datasets
    return package


def _class_name(value: Any, names: Sequence[str]) -> str:
    # Test splits on the hub whose labels are secret have -1.
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise ValueError(f"{value} is none of the {len(names)} classes")
    return names[value]


def _holds_bytes(kind: Any) -> bool:
    """Whether a column of plain Parquet holds bytes, alone or as ``{bytes, path}``."""
    if isinstance(kind, dict):
        kind = kind.get("bytes")
    return getattr(kind, "dtype", None) in ("binary", "large_binary")


def _names(names: Mapping[str, Any]) -> str:
    listed = ", ".join(map(printable, list(names)[:10]))
    return listed + (", …" if len(names) > 10 else "")
