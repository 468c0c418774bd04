"""The images whose predictions are traced: the study's images and picture files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cwx.data.adversarial_set import AdversarialSet
from cwx.data.datamodule import ImageData
from cwx.data.image_files import Reader
from cwx.data.pixel_conversion import PixelRules
from cwx.data.resizing import ResizingSource, fill
from cwx.evaluations.contributions.images import evaluated_indices
from cwx.training.subject import Subject


@dataclass(frozen=True, kw_only=True)
class TraceImage:
    """An image whose prediction is traced.

    Attributes:
        kind: ``test``, ``adversarial`` or ``file``.
        name: for people.
        pixels: bytes ``[C, H, W]``.
        label: its class, if known; of an adversarial image, the class of its original.
        target: the target class of an adversarial image.
        key: of its random draws: (index of the test image or the original,), or (−1, number of the
            file).
    """

    kind: str
    name: str
    pixels: Tensor
    key: tuple[int, ...]
    label: int | None = None
    target: int | None = None


def study_images(subject: Subject, images: int | Sequence[int]) -> list[TraceImage]:
    """Test images, each followed by its first adversarial image, if it has any.

    Args:
        subject: the study.
        images: number of test images, evenly spaced among the originals of adversarial images if
            there are any, else among all; or their indices.
    """
    test, adversarial = subject.data.splits.test, subject.adversarial
    selected: list[TraceImage] = []
    chosen = evaluated_indices(subject, images).tolist() if isinstance(images, int) else images
    for index in chosen:
        name, label = f"Test image {index}", int(test.labels[index])
        pixels = test.images[index].cpu()
        selected.append(
            TraceImage(kind="test", name=name, pixels=pixels, key=(index,), label=label)
        )
        if adversarial is not None:
            selected += _first_adversarial(index, name, adversarial)
    return selected


def _first_adversarial(original: int, name: str, adversarial: AdversarialSet) -> list[TraceImage]:
    """The first adversarial image of a test image; empty if it has none."""
    return [
        TraceImage(
            kind="adversarial",
            name=f"Adversarial image {index}, made from {name.lower()}",
            pixels=adversarial.at(torch.tensor([index]))[0],
            key=(original,),
            label=int(adversarial.labels[index]),
            target=int(adversarial.targets[index]),
        )
        for index in (adversarial.originals == original).nonzero()[:1, 0].tolist()
    ]


def file_images(files: Sequence[Path], data: ImageData, setting: str) -> list[TraceImage]:
    """Picture files, resized to cover the size of the data's images and cropped to it.

    Args:
        files: paths.
        data: gives the shape of images.
        setting: name of the setting of `files`, for messages.

    Raises:
        ValueError: a file cannot be read, or the data's images are neither grey nor in colour.
    """
    channels, height, width = data.image_shape
    if files and channels not in (1, 3):
        raise ValueError(
            f"{setting} names pictures, which are grey or in colour, and the data's images have "
            f"{channels} channels: set it to []"
        )
    # As the data's images, where their source resizes any.
    source = data.source
    interpolation = source.interpolation if isinstance(source, ResizingSource) else None
    fit = fill(height, width, interpolation=interpolation)
    reader = Reader(channels=channels, fit=fit, rules=PixelRules())
    try:
        return [
            TraceImage(
                kind="file",
                name=str(file),
                pixels=reader.read([(file, 0)]).images[0],
                key=(-1, number),
            )
            for number, file in enumerate(files)
        ]
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from error
