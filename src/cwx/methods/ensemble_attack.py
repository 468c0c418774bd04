"""Attacking an ensemble of networks, one batch per step (Dong et al., §2.1)."""

from collections.abc import Sequence

import lightning as L
import torch
from torch import Tensor, nn

from cwx.data.datamodule import ImageData
from cwx.functional.attack_targets import least_likely
from cwx.functional.ensemble_attack import EnsembleAttack, average_probabilities
from cwx.networks.finite_logits import finite_logits
from cwx.storage.shards import Shards


class EnsembleAttacker(L.LightningModule):
    """Makes batches of adversarial images; a batch is a function of its number.

    Each test image is perturbed towards the k = `targets` classes of lowest mean ensemble
    probability, which gives k consecutive adversarial images in one batch. Images are rounded to
    bytes, the format of data sets; predictions are measured after rounding.

    Args:
        networks: the members of the ensemble, frozen, in eval mode.
        data: its test images are attacked.
        indices: indices of the attacked test images ``[n]``.
        targets: k, the number of target classes per image.
        attack: the attack on the ensemble.
        shards: assigns n·k adversarial images to batches; the batch size is a multiple of k.
        stage: the name in logs.
    """

    def __init__(
        self,
        *,
        networks: Sequence[nn.Module],
        data: ImageData,
        indices: Tensor,
        targets: int,
        attack: EnsembleAttack,
        shards: Shards,
        stage: str,
    ) -> None:
        super().__init__()
        assert shards.size % targets == 0
        assert shards.count == len(indices) * targets
        self.networks = nn.ModuleList(networks)
        self.test, self.normalization = data.splits.test, data.normalization
        self.indices, self.targets, self.attack = indices, targets, attack
        self.shards, self.stage = shards, stage

    def predict_step(self, number: int) -> dict[str, Tensor]:
        """Make batch `number`.

        Returns:
            per adversarial image: ``images`` as bytes, ``labels``, ``targets``, and ``originals``,
            the index of the original test image; ``distance``, the L2 distance from the original
            on the attack's scale, and ``distance_rounded``, the same after rounding to bytes;
            boolean ``[rows, networks]``: whether each network predicts the target for the bytes
            (``reached``) or the label (``kept``), and whether it classifies the original correctly
            (``right``).
        """
        networks, normalization = list(self.networks), self.normalization
        indices = self._originals(number)
        clean = normalization.from_bytes(self.test.images[indices].to(self.device))
        true_labels = self.test.labels[indices].to(self.device)
        probabilities = average_probabilities(networks, clean)
        target_classes = least_likely(probabilities, true_labels, self.targets)
        correct = self._predictions(clean) == true_labels[:, None]
        originals, images, labels, right = (
            tensor.repeat_interleave(self.targets, 0)
            for tensor in (indices, clean, true_labels, correct)
        )
        targets = target_classes.flatten()
        adversarial = self.attack(networks, images, targets, normalization=normalization)
        rounded = self.attack.to_bytes(adversarial, images, normalization=normalization)
        dequantised = normalization.from_bytes(rounded)
        predicted = self._predictions(dequantised)
        return {
            "images": rounded,
            "labels": labels,
            "targets": targets,
            "originals": originals,
            "distance": self.attack.distance(images, adversarial, normalization=normalization),
            "distance_rounded": self.attack.distance(
                images, dequantised, normalization=normalization
            ),
            "reached": predicted == targets[:, None],
            "kept": predicted == labels[:, None],
            "right": right,
        }

    def _originals(self, number: int) -> Tensor:
        """Indices of the test images that batch `number` attacks."""
        rows = self.shards.rows(number)
        return self.indices[rows.start // self.targets : rows.stop // self.targets]

    @torch.no_grad()
    def _predictions(self, images: Tensor) -> Tensor:
        """The predicted class of each image by each network ``[n, networks]``."""
        return torch.stack(
            [finite_logits(network(images)).argmax(1) for network in self.networks], 1
        )
