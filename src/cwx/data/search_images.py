"""Two disjoint random sets of test images: for a search, and to measure its success."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cwx.data.splits import ImageSet
from cwx.functional.class_names import describe_class
from cwx.functional.rng import stream


@dataclass(frozen=True, kw_only=True)
class SearchImages:
    """Disjoint boolean masks ``[t]`` of the test images.

    Attributes:
        searched: the images of a search.
        held_out: the images on which its success is measured.
    """

    searched: Tensor
    held_out: Tensor

    def pool(self, labels: Tensor, target: int) -> Tensor:
        """Indices of the search images of other classes than `target`."""
        return (self.searched & (labels != target)).nonzero()[:, 0]

    def check(self, labels: Tensor, target: int, classes: Sequence[str], stage: str) -> None:
        """Refuse a target class without images of other classes in either set.

        Raises:
            ValueError: names the class.
        """
        others = labels != target
        if not (self.searched & others).any() or not (self.held_out & others).any():
            raise ValueError(
                f"method.{stage} sends images of other classes to {describe_class(target, classes)}"
                f", and there are {int(others.sum())} such test images: give two or more, and more "
                f"than one class"
            )


def draw_search_images(
    test: ImageSet, images: int, held_out: int, seed: int, stage: str
) -> SearchImages:
    """Draw both sets, each of a third of the test images at most: the rest stays for evaluations.

    Args:
        images: size of the search set, at most.
        held_out: size of the other set, at most.
        seed: of the draw.
        stage: the name of the method, for the message.

    Raises:
        ValueError: there are fewer than three test images.
    """
    total = len(test)
    if total < 3:
        raise ValueError(
            f"method.{stage} needs three or more test images, and there are {total}: add some"
        )
    third = total // 3
    first, second = min(images, third), min(held_out, third)
    order = torch.randperm(total, generator=stream(seed))
    masks = torch.zeros(2, total, dtype=torch.bool)
    masks[0, order[:first]] = True
    masks[1, order[first : first + second]] = True
    return SearchImages(searched=masks[0], held_out=masks[1])
