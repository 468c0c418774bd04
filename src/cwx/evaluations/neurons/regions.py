"""Regions of images to which neurons respond, by the occlusion of squares (Zhou et al. 2015)."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from cwx.explanations.drawing import highlight
from cwx.functional.occlusion import Occluders, discrepancy, random_occluders
from cwx.functional.rng import stream
from cwx.training.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Regions:
    """How the regions of a neuron are measured and highlighted.

    Attributes:
        occluder: side of the squares in pixels.
        stride: pixels from one square to the next.
        threshold: pixels above this fraction of a map's maximum are highlighted.
    """

    occluder: int
    stride: int
    threshold: float

    def occluders(self, image_shape: tuple[int, int, int]) -> Occluders:
        """The squares: the same for all images and networks, so that their maps are comparable.

        Raises:
            ValueError: the squares do not fit the images, or leave pixels uncovered.
        """
        return random_occluders(
            image_shape, size=self.occluder, stride=self.stride, generator=stream(0)
        )

    def maps(
        self, image: Tensor, activations: Callable[[Tensor], Tensor], subject: Subject
    ) -> Tensor:
        """A discrepancy map per neuron, ``[neurons, H, W]`` on the CPU.

        Args:
            image: in 0-1, ``[C, H, W]``.
            activations: from normalised images to activations ``[n, neurons]``.
            subject: gives the normalisation, the device and the size of batches.
        """
        normalization = subject.data.normalization
        occluders = self.occluders(subject.data.image_shape)
        return discrepancy(
            activations,
            normalization.normalize(image).to(subject.device),
            replace(occluders, patches=normalization.normalize(occluders.patches)),
            chunk=subject.data.batch_size,
        ).cpu()

    def highlighted(self, image: Tensor, discrepancies: Tensor) -> Tensor:
        """The image with an outline around the region of one neuron's map."""
        return highlight(image, discrepancies, self.threshold)
