"""Random noise of the norm of each adversarial perturbation, a control of the attack."""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor

from cwx.data.adversarial_set import AdversarialSet
from cwx.data.splits import ImageSet
from cwx.functional.noise_of_norm import noise_of_norm
from cwx.functional.rng import stream
from cwx.training.ranks import Ranks

log = logging.getLogger(__name__)

# The purpose in the key of the random stream of each image.
_NOISE = 1
# Noise that misses the norm by more than this fraction is counted in a warning.
_LARGEST_MISS = 0.01


class NoiseImages:
    """The originals of adversarial images with normal noise.

    Each is as far from its original (L2, as bytes) as the adversarial image of the same index. The
    noise is a function of this index.

    Args:
        adversarial: the adversarial images.
        test: the test images, whose indices are ``adversarial.originals``.
    """

    def __init__(self, adversarial: AdversarialSet, test: ImageSet) -> None:
        self._adversarial, self._test = adversarial, test
        self._missed = 0

    def batches(
        self,
        *,
        size: int,
        ranks: Ranks = Ranks(),  # noqa: B008
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of this rank, those of `normalized_batches`: indices, and bytes ``[b, …]``.

        Args:
            size: at most so many images per batch.
            ranks: the batches are dealt out to them in turn; no other is made.
        """
        number = 0
        for rows, attacked in self._adversarial.batches():
            for images in attacked.split(size):
                indices = torch.arange(rows.start, rows.start + len(images))
                if ranks.has(number):
                    yield indices, self._noisy(images, indices)
                number, rows = number + 1, slice(rows.start + len(images), rows.stop)

    def _noisy(self, attacked: Tensor, indices: Tensor) -> Tensor:
        originals = self._test.images[self._adversarial.originals[indices]]
        norms = _distances(attacked, originals)
        noise = torch.stack([
            torch.randn(originals.shape[1:], generator=stream(_NOISE, index))
            for index in indices.tolist()
        ])  # fmt: skip
        images = noise_of_norm(originals, norms, noise)
        missed = (_distances(images, originals) - norms).abs() > _LARGEST_MISS * norms
        self._missed += int(missed.sum())
        return images

    def warn(self, ranks: Ranks = Ranks()) -> None:  # noqa: B008
        """Warn about images that miss the norm, once the batches of all ranks are made."""
        if missed := sum(ranks.collect(lambda: self._missed)):
            log.warning(
                "the noise of %d of %d images differs from the norm of their perturbation by more "
                "than %g %%: the perturbation is a few grey levels, or drives most pixels to black "
                "or white",
                missed, len(self._adversarial), 100 * _LARGEST_MISS,
            )  # fmt: skip


def _distances(images: Tensor, others: Tensor) -> Tensor:
    distances: Tensor = (images.float() - others.float()).flatten(1).norm(dim=1)
    return distances
