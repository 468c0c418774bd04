"""The images whose predictions are traced: of the study, and the user's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cwx.data.adversarial_set import AdversarialSet
from cwx.data.datamodule import ImageData
from cwx.data.image_files import Reader, fill
from cwx.training.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Pictured:
    """An image whose prediction is traced.

    Attributes:
        kind: ``test``, ``adversarial`` or ``file``.
        name: which one, for people.
        pixels: bytes ``[C, H, W]``.
        label: its class, if it is known; of an adversarial image, that of its original.
        target: the class that an adversarial image was made for.
    """

    kind: str
    name: str
    pixels: Tensor
    label: int | None = None
    target: int | None = None


def of_study(subject: Subject, images: int | Sequence[int]) -> list[Pictured]:
    """Test images, each followed by the first adversarial image that was made from it, if any.

    Args:
        images: so many, evenly spaced among those that adversarial images were made from, if there
            are any, else among all; or their indices.
    """
    test, adversarial = subject.data.splits.test, subject.adversarial
    found: list[Pictured] = []
    for index in _indices(subject, images) if isinstance(images, int) else images:
        name, label = f"Test image {index}", int(test.labels[index])
        pixels = test.images[index].cpu()
        found.append(Pictured(kind="test", name=name, pixels=pixels, label=label))
        if adversarial is not None:
            found += _made_from(index, name, adversarial)
    return found


def _indices(subject: Subject, count: int) -> list[int]:
    every = torch.arange(len(subject.data.splits.test))
    among = every if subject.adversarial is None else subject.adversarial.originals.unique()
    taken = min(count, len(among))
    chosen: list[int] = among[torch.arange(taken) * len(among) // max(taken, 1)].tolist()
    return chosen


def _made_from(index: int, name: str, adversarial: AdversarialSet) -> list[Pictured]:
    """The first adversarial image of a test image, if there is one."""
    return [
        Pictured(
            kind="adversarial",
            name=f"AdversarialSet image {place}, made from {name.lower()}",
            pixels=adversarial.at(torch.tensor([place]))[0],
            label=int(adversarial.labels[place]),
            target=int(adversarial.targets[place]),
        )
        for place in (adversarial.originals == index).nonzero()[:1, 0].tolist()
    ]


def of_files(files: Sequence[Path], data: ImageData, place: str) -> list[Pictured]:
    """Picture files, resized to cover the size of the data's images and cut to it.

    Args:
        place: the setting that names them.

    Raises:
        ValueError: one cannot be read, or pictures have not the channels of the data.
    """
    channels, height, width = data.image_shape
    if files and channels not in (1, 3):
        raise ValueError(
            f"{place} names pictures, which are grey or in colour, and the data's images have "
            f"{channels} channels: set it to []"
        )
    reader = Reader(channels=channels, fit=fill(height, width))
    try:
        return [
            Pictured(kind="file", name=str(file), pixels=reader.read([(file, 0)]).images[0])
            for file in files
        ]
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
