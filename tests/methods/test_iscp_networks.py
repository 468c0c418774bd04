"""The mask search on networks of other kinds: vision transformers, and those of larger images."""

from dataclasses import replace

import pytest
import torch
from support import references
from support.builders import Blobs, image_data
from support.mask_searches import fitted, search
from torch.nn import functional as F
from torchvision import models

from cwx.data.nontarget import Nontarget
from cwx.data.splits import ImageSet
from cwx.functional.canvas_sampling import random as any_image


def vit(side):
    return models.VisionTransformer(
        image_size=side, patch_size=side // 4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=16,
        num_classes=3,
    )  # fmt: skip


def swin(side):
    return models.SwinTransformer(
        patch_size=[4, 4], embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=[2, 2],
        num_classes=3,
    )  # fmt: skip


def squeezenet(side):
    return models.squeezenet1_1(num_classes=3)


class LargeBlobs(Blobs):
    """The blobs as colour images of another size."""

    def __init__(self, side):
        self.side = side

    def _set(self, per_class, seed):
        small = super()._set(per_class // 2, seed)
        grey = small.images[:, :1].float().expand(-1, 3, -1, -1)
        return ImageSet(F.interpolate(grey, size=self.side).byte(), small.labels)


@pytest.mark.parametrize(
    ("network", "side"), [(vit, 32), (swin, 32), (vit, 224), (squeezenet, 224)]
)
def test_each_search_is_algorithm_1_on_any_network(subject, tmp_path, network, side):
    torch.manual_seed(0)
    data, built = image_data(LargeBlobs(side), std=0.5), network(side).eval()
    other = replace(
        subject, data=data, trajectories=[], held_out=[], evaluation_networks={"other": [built]}
    )
    # A random network recognises no class.
    settings = {"explains": "other", "canvas": any_image, "canvases": 1, "passes": 1}
    found = fitted(search(other, **settings, chunk=2), tmp_path)
    batches = Nontarget(
        searches=[(label, 0) for label in range(3)],
        labels=data.splits.test.labels,
        searched=found.searched,
        batch_size=3,
        seed=3,
    )
    for row in range(3):
        own = [
            data.splits.test.images[batch.images[at][batch.weights[at] > 0]].float() / 255
            for batch in batches.batches(0)
            for at in (batch.searches == row).nonzero()[:, 0]
        ]
        expected = references.pattern_search(
            built,
            found.canvases[row],
            row,
            own,
            normalize=data.normalization.normalize,
            alpha=0.2,
        )
        # Rounding errors change the sign of gradients that are almost 0.
        equal = (found.masks[row] - expected).abs() < 1e-5
        assert equal.double().mean() > 0.98
        assert not torch.equal(expected, torch.full_like(expected, 0.5))
