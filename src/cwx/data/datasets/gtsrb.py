"""The German Traffic Sign Recognition Benchmark, as published."""

import csv
from pathlib import Path
from typing import Annotated, Literal

from cwx.data.datasets.class_folders import (
    files_by_class,
    label_files,
    match_listing,
    preview_names,
)
from cwx.data.datasets.download import Archive, fetch
from cwx.data.file_splits import FileSplits
from cwx.data.image_files import Reader
from cwx.data.pixel_conversion import PixelRules
from cwx.data.resizing import check_side, stretch_to
from cwx.data.splits import Splits
from cwx.data.stored_images import LabelledFiles
from cwx.storage.regular_files import read_regular_text

PUBLISHER = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370"

TRAINING = {
    "whole": Archive(
        url=f"{PUBLISHER}/GTSRB_Final_Training_Images.zip",
        md5="f33fd80ac59bff73c82d25ab499e03a3",
        part="GTSRB/Final_Training/Images",
    ),
    "torchvision": Archive(
        url=f"{PUBLISHER}/GTSRB-Training_fixed.zip",
        md5="513f3c79a4c5141765e10e952eaa2478",
        part="GTSRB/Training",
    ),
}
TEST_IMAGES = Archive(
    url=f"{PUBLISHER}/GTSRB_Final_Test_Images.zip",
    md5="c7e4e6327067d32654124b0fe9e82185",
    part="GTSRB/Final_Test/Images",
)
TEST_LABELS = Archive(
    url=f"{PUBLISHER}/GTSRB_Final_Test_GT.zip",
    md5="fe31e9c9270bbcd7b84b7f21a9d9d9e5",
    part="GT-final_test.csv",
)

SIGNS = (
    *(f"Speed limit ({limit}km/h)" for limit in (20, 30, 50, 60, 70, 80)),
    "End of speed limit (80km/h)",
    "Speed limit (100km/h)",
    "Speed limit (120km/h)",
    "No passing",
    "No passing for vehicles over 3.5 metric tons",
    "Right-of-way at the next intersection",
    "Priority road",
    "Yield",
    "Stop",
    "No vehicles",
    "Vehicles over 3.5 metric tons prohibited",
    "No entry",
    "General caution",
    "Dangerous curve to the left",
    "Dangerous curve to the right",
    "Double curve",
    "Bumpy road",
    "Slippery road",
    "Road narrows on the right",
    "Road work",
    "Traffic signals",
    "Pedestrians",
    "Children crossing",
    "Bicycles crossing",
    "Beware of ice/snow",
    "Wild animals crossing",
    "End of all speed and passing limits",
    "Turn right ahead",
    "Turn left ahead",
    "Ahead only",
    "Go straight or right",
    "Go straight or left",
    "Keep right",
    "Keep left",
    "Roundabout mandatory",
    "End of no passing",
    "End of no passing by vehicles over 3.5 metric tons",
)
"""The names of classes 0 to 42."""


# The bounding boxes of a class, beside its images.
_ANNOTATIONS = ("GT-*.csv",)
# The published list has 500 kB.
_MAX_LISTING_BYTES = 2**26


class GTSRB:
    """43 classes of traffic signs in colour, 15 to 250 pixels wide, with 12,630 test images.

    Stallkamp et al., Man vs. computer: Benchmarking machine learning algorithms for traffic sign
    recognition, 2012. Training images of a class are ordered by physical sign, with about 30
    images of each sign.

    Args:
        root: the folder with ``GTSRB/Final_Training/Images/<class>/*.ppm`` or
            ``GTSRB/Training/<class>/*.ppm``, ``GTSRB/Final_Test/Images/*.ppm`` and
            ``GT-final_test.csv``: the layout of the archives, and of the folder ``gtsrb`` that
            torchvision creates. `root` may also be the folder ``GTSRB`` itself.
        training: ``whole`` for the 39,209 images of the final training archive, ``torchvision``
            for the 26,640 images of the archive that torchvision uses.
        size: side in pixels to which every image is stretched.
        interpolation: the filter that resizes images, a name of
            `cwx.data.resizing.INTERPOLATIONS`; ``None`` for that of most published weights.
        download: whether to download missing parts.
    """

    def __init__(
        self,
        *,
        root: str,
        training: Literal["whole", "torchvision"],
        size: Annotated[int, ">= 1, <= 4096"],
        interpolation: str | None,
        download: bool,
    ) -> None:
        if training not in TRAINING:
            raise ValueError(f"data.source.training is {training!r}: give whole or torchvision")
        self.root, self.download = Path(root), download
        check_side(size)
        self.training, self.interpolation = TRAINING[training], interpolation
        self.fit = stretch_to(size, size, interpolation=interpolation)

    def prepare(self) -> None:
        if self.download:
            for archive in (self.training, TEST_IMAGES, TEST_LABELS):
                fetch(archive, self._path(archive), self.root)

    def load(self) -> Splits:
        return self.listing().read()

    def listing(self) -> FileSplits:
        """The files of both splits, in the order of `load`."""
        reader = Reader(channels=3, fit=self.fit, rules=PixelRules())
        train, test = self._train(), self._test()
        return FileSplits(self.root, train, test, SIGNS, None, lambda: reader)

    def _path(self, archive: Archive) -> Path:
        short = self.root / archive.part.removeprefix("GTSRB/")
        return short if short.exists() else self.root / archive.part

    def _remedy(self, archive: Archive) -> str:
        return archive.manual_steps(self._path(archive), self.root)

    def _train(self) -> LabelledFiles:
        folder = self._path(self.training)
        images = files_by_class(folder, self._remedy(self.training), _ANNOTATIONS)
        names = [f"{label:05}" for label in range(len(SIGNS))]
        if different := images.keys() ^ set(names):
            raise ValueError(
                f"{folder} does not have the folders 00000 to {names[-1]}, one per class: "
                f"{preview_names(different)}; unpack it again or remove the extra folders"
            )
        return label_files(images, names)

    def _test(self) -> LabelledFiles:
        listing, folder = self._path(TEST_LABELS), self._path(TEST_IMAGES)
        for archive, exists in ((TEST_LABELS, listing.is_file()), (TEST_IMAGES, folder.is_dir())):
            if not exists:
                raise ValueError(f"there is no {self._path(archive)}: {self._remedy(archive)}")
        return match_listing(folder, self._test_labels(listing), listing)

    def _test_labels(self, listing: Path) -> list[tuple[str, int]]:
        labels_by_text = {str(label): label for label in range(len(SIGNS))}
        labels = []
        rows = csv.DictReader(self._lines(listing), delimiter=";", skipinitialspace=True)
        for row in rows:
            name, label = row.get("Filename"), row.get("ClassId")
            if name is None or label not in labels_by_text:
                raise ValueError(
                    f"line {rows.line_num} of {listing} gives {name!r} the ClassId {label!r}, "
                    f"not one of 0 to {len(SIGNS) - 1}: {self._remedy(TEST_LABELS)}"
                )
            labels.append((name, labels_by_text[label]))
        if not labels:
            raise ValueError(f"{listing} lists no images: {self._remedy(TEST_LABELS)}")
        return labels

    def _lines(self, listing: Path) -> list[str]:
        try:
            text = read_regular_text(
                listing, _MAX_LISTING_BYTES, encoding="utf-8-sig", errors="replace"
            )
        except OSError as error:
            raise ValueError(
                f"{listing} cannot be read ({error.strerror}): {self._remedy(TEST_LABELS)}"
            ) from error
        return text.splitlines(keepends=True)
