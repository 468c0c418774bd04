"""Random noise of the norm of each adversarial perturbation, a control of the attack."""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor

from cwx.data.adversarial_set import AdversarialSet
from cwx.data.splits import ImageSet
from cwx.functional.noise_of_norm import noise_of_norm
from cwx.functional.rng import stream

log = logging.getLogger(__name__)

# The purpose in the key of the random stream of each image.
_NOISE = 1
# Noise that misses the norm by more than this fraction is counted in a warning.
_LARGEST_MISS = 0.01


def noise_images(adversarial: AdversarialSet, test: ImageSet) -> Iterator[Tensor]:
    """The originals with normal noise, in the parts and in the order of the adversarial images.

    Each is as far from its original (L2, as bytes) as the adversarial image of the same index. The
    noise is a function of this index.

    Args:
        adversarial: the adversarial images.
        test: the test images, whose indices are ``adversarial.originals``.
    """
    missed = 0
    for rows, attacked in adversarial.batches():
        originals = test.images[adversarial.originals[rows]]
        norms = _distances(attacked, originals)
        noise = torch.stack([
            torch.randn(originals.shape[1:], generator=stream(_NOISE, index))
            for index in range(rows.start, rows.stop)
        ])  # fmt: skip
        images = noise_of_norm(originals, norms, noise)
        missed += int(((_distances(images, originals) - norms).abs() > _LARGEST_MISS * norms).sum())
        yield images
    if missed:
        log.warning(
            "the noise of %d of %d images differs from the norm of their perturbation by more than "
            "%g %%: the perturbation is a few grey levels, or drives most pixels to black or white",
            missed, len(adversarial), 100 * _LARGEST_MISS,
        )  # fmt: skip


def _distances(images: Tensor, others: Tensor) -> Tensor:
    distances: Tensor = (images.float() - others.float()).flatten(1).norm(dim=1)
    return distances
