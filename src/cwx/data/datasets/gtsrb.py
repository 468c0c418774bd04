"""The German Traffic Sign Recognition Benchmark, as published."""

import csv
from pathlib import Path
from typing import Literal

from cwx.data.datasets.download import Archive, fetch
from cwx.data.datasets.folders import by_class, labelled, listed, some
from cwx.data.image_files import Labelled, Reader, stretch_to
from cwx.data.splits import Splits

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
"""What the signs of classes 0 to 42 say."""


class GTSRB:
    """43 classes of traffic signs in colour, of 15 to 250 pixels, tested on 12,630 images.

    Stallkamp et al., Man vs. computer: Benchmarking machine learning algorithms for traffic sign
    recognition, 2012. Training images of a class follow each other by physical sign, about 30
    of each.

    Args:
        root: the folder that holds ``GTSRB/Final_Training/Images/<class>/*.ppm`` or
            ``GTSRB/Training/<class>/*.ppm``, ``GTSRB/Final_Test/Images/*.ppm`` and
            ``GT-final_test.csv``, as the archives unpack and as torchvision leaves them in its
            root's ``gtsrb``; the folder ``GTSRB`` itself may be left out.
        training: ``whole`` for the 39,209 images of the final benchmark's training archive,
            ``torchvision`` for the 26,640 of the one that torchvision takes.
        size: side in pixels to which every image is stretched.
        download: whether missing parts are fetched.
    """

    def __init__(
        self, *, root: str, training: Literal["whole", "torchvision"], size: int, download: bool
    ) -> None:
        if training not in TRAINING:
            raise ValueError(f"data.source.training is {training!r}: give whole or torchvision")
        self.root, self.download = Path(root), download
        self.training, self.fit = TRAINING[training], stretch_to(size)

    def prepare(self) -> None:
        if self.download:
            for archive in (self.training, TEST_IMAGES, TEST_LABELS):
                fetch(archive, self._place(archive), self.root)

    def load(self) -> Splits:
        reader = Reader(channels=3, fit=self.fit)
        train, test = self._train(), self._test()
        return Splits(reader.read(train), reader.read(test), SIGNS)

    def _place(self, archive: Archive) -> Path:
        short = self.root / archive.part.removeprefix("GTSRB/")
        return short if short.exists() else self.root / archive.part

    def _remedy(self, archive: Archive) -> str:
        return archive.placing(self._place(archive), self.root)

    def _train(self) -> Labelled:
        folder = self._place(self.training)
        images = by_class(folder, self._remedy(self.training))
        names = [f"{label:05}" for label in range(len(SIGNS))]
        if different := images.keys() ^ set(names):
            raise ValueError(
                f"{folder} does not hold the folders 00000 to {names[-1]}, one a class: "
                f"{some(different)}; unpack it again or remove what is too many"
            )
        return labelled(images, names)

    def _test(self) -> Labelled:
        listing, folder = self._place(TEST_LABELS), self._place(TEST_IMAGES)
        for archive, found in ((TEST_LABELS, listing.is_file()), (TEST_IMAGES, folder.is_dir())):
            if not found:
                raise ValueError(f"there is no {self._place(archive)}: {self._remedy(archive)}")
        return listed(folder, self._test_labels(listing), listing)

    def _test_labels(self, listing: Path) -> list[tuple[str, int]]:
        known = {str(label): label for label in range(len(SIGNS))}
        labels = []
        with listing.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = csv.DictReader(file, delimiter=";", skipinitialspace=True)
            for row in rows:
                name, label = row.get("Filename"), row.get("ClassId")
                if name is None or label not in known:
                    raise ValueError(
                        f"line {rows.line_num} of {listing} gives {name!r} the ClassId {label!r}, "
                        f"not one of 0 to {len(SIGNS) - 1}: {self._remedy(TEST_LABELS)}"
                    )
                labels.append((name, known[label]))
        if not labels:
            raise ValueError(f"{listing} lists no images: {self._remedy(TEST_LABELS)}")
        return labels
