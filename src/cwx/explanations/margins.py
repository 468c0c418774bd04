"""The largest margins of classes, and the images that reach them."""

from dataclasses import dataclass

from torch import Tensor

from cwx.explanations.images import Explanations
from cwx.functional.images import Normalization


@dataclass(frozen=True, kw_only=True)
class Margins:
    """The result of a search for the images of largest margin, from several starts per class.

    Attributes:
        explains: the kind of network that was searched, such as ``expert``.
        unit_images: the image of the best start of each class, ``[n, C, H, W]``, pixels in 0-1.
        labels: the class of each image, ``[n]``, each class once.
        start_margins: the margin that each start reached, in logits, ``[n, starts]``.
    """

    explains: str
    unit_images: Tensor
    labels: Tensor
    start_margins: Tensor

    @property
    def margins(self) -> Tensor:
        """The statistic of each class ``[n]``: the largest margin of its starts, in logits."""
        return self.start_margins.amax(1)

    def for_display(self, normalization: Normalization) -> Explanations:
        """The images as they are: their pixels are in the image range."""
        return Explanations(normalization.normalize(self.unit_images), self.labels)
