"""Attacking several networks at once, a batch a step (Dong et al., §2.1; D1)."""

from collections.abc import Sequence

import lightning as L
import torch
from torch import Tensor, nn

from cwx.data.datamodule import ImageData
from cwx.functional.attack_targets import least_likely
from cwx.functional.ensemble_attack import EnsembleAttack, average_probabilities
from cwx.storage.shards import Shards


class Mislead(L.LightningModule):
    """Makes the batches that it is asked for; each depends on its number alone.

    A batch holds all targets of each of its images, those least likely to the networks together,
    one example after another. Images become bytes, as data sets are kept: whether networks still
    take them for their targets is measured afterwards.

    Args:
        networks: the members of the ensemble, frozen, in eval mode.
        data: whose test images are attacked.
        places: where those attacked lie among the test images ``[n]``.
        targets: their number for each image.
        attack: how.
        shards: of n·targets examples, which are in a batch; its size is a multiple of `targets`.
        stage: its name in logs.
    """

    def __init__(
        self,
        *,
        networks: Sequence[nn.Module],
        data: ImageData,
        places: Tensor,
        targets: int,
        attack: EnsembleAttack,
        shards: Shards,
        stage: str,
    ) -> None:
        super().__init__()
        assert shards.size % targets == 0
        assert shards.count == len(places) * targets
        self.networks = nn.ModuleList(networks)
        self.test, self.normalization = data.splits.test, data.normalization
        self.places, self.targets, self.attack = places, targets, attack
        self.shards, self.stage = shards, stage

    def predict_step(self, number: int) -> dict[str, Tensor]:
        """Batch `number`.

        Returns:
            ``images`` as bytes, ``labels`` and ``targets``, and ``originals``, the index among the
            test images, of each example; ``distance``, how far the attack took it in L2 on the
            attack's scale, and ``distance_rounded``, how far its bytes are; and of each network
            ``[rows, networks]`` whether it takes the bytes for the target (``reached``) or still
            for the label (``kept``), and whether it took the original for it (``right``).
        """
        networks, normalization = list(self.networks), self.normalization
        places = self._originals(number)
        clean = normalization.from_bytes(self.test.images[places].to(self.device))
        own = self.test.labels[places].to(self.device)
        chosen = least_likely(average_probabilities(networks, clean), own, self.targets)
        originals, images, labels, right = (
            each.repeat_interleave(self.targets, 0)
            for each in (places, clean, own, self._predictions(clean) == own[:, None])
        )
        targets = chosen.flatten()
        made = self.attack(networks, images, targets, normalization=normalization)
        rounded = normalization.to_bytes(made)
        seen = normalization.from_bytes(rounded)
        predicted = self._predictions(seen)
        return {
            "images": rounded,
            "labels": labels,
            "targets": targets,
            "originals": originals,
            "distance": self.attack.distance(images, made, normalization=normalization),
            "distance_rounded": self.attack.distance(images, seen, normalization=normalization),
            "reached": predicted == targets[:, None],
            "kept": predicted == labels[:, None],
            "right": right,
        }

    def _originals(self, number: int) -> Tensor:
        """Which test images a batch is made of."""
        rows = self.shards.rows(number)
        return self.places[rows.start // self.targets : rows.stop // self.targets]

    @torch.no_grad()
    def _predictions(self, images: Tensor) -> Tensor:
        """The class that each network takes each image for ``[n, networks]``."""
        return torch.stack([network(images).argmax(1) for network in self.networks], 1)
