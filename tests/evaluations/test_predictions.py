"""Predictions of the networks of a trajectory."""

from dataclasses import replace

import torch
from support.builders import image_data
from torch.nn import functional as F

from cwx.data.splits import ImageSet
from cwx.evaluations.predictions import predicted_classes


class Brightness:
    """In place of `NetworkLoss`: the class of an image is its brightness; keeps the batches."""

    def __init__(self, data):
        self.data, self.batches = data, []

    def logits(self, vector, images):
        unit = self.data.normalization.denormalize(images)
        classes = (unit.mean((1, 2, 3)) * 255 / 50).round().long()
        self.batches.append(classes)
        return F.one_hot(classes, 3).float()


def test_batches_of_a_set_that_is_sorted_by_class_have_several_classes(subject):
    """Batch norm would take the mean of a single class away."""
    data = image_data(batch_size=10)
    labels = torch.arange(3).repeat_interleave(40)
    pixels = (labels * 50).byte().view(-1, 1, 1, 1).expand(-1, *data.image_shape)
    loss = Brightness(data)
    predictions = predicted_classes(
        replace(subject, data=data), loss, torch.zeros(1), ImageSet(pixels.clone(), labels)
    )
    assert torch.equal(predictions, labels)
    assert sum(len(batch) for batch in loss.batches) == 120
    assert all(len(batch.unique()) > 1 for batch in loss.batches)
