import hashlib
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.builders import Blobs, BlobsWithoutTraining, image_data

from cwx.data.datamodule import ImageData
from cwx.data.global_batches import GlobalBatches
from cwx.data.splits import ImageSet


def sampler(count, *, size, seeds=(5,), rank=0, ranks=1):
    return GlobalBatches(
        count, size=size, seeds=seeds, rank=rank, ranks=ranks, device=torch.device("cpu")
    )


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 4), st.integers(0, 3))
def test_ranks_divide_the_batches_of_one_process(count, size, ranks, epoch):
    def epoch_of(rank, ranks):
        batches = sampler(count, size=size, rank=rank, ranks=ranks)
        batches.set_epoch(epoch)
        assert len(list(batches)) == len(batches)
        return [batch for (batch,) in batches]

    whole = epoch_of(0, 1)
    parts = [epoch_of(rank, ranks) for rank in range(ranks)]
    assert sorted(torch.cat([indices for indices, _ in whole]).tolist()) == list(range(count))
    for step, (indices, total) in enumerate(whole):
        slices = [part[step] for part in parts]
        assert sorted(torch.cat([s for s, _ in slices]).tolist()) == sorted(indices.tolist())
        assert {t for _, t in slices} == {total} == {len(indices)}


def test_the_batches_of_a_seed_do_not_depend_on_other_seeds():
    together = list(sampler(30, size=8, seeds=(3, 4)))
    for index, seed in enumerate((3, 4)):
        alone = list(sampler(30, size=8, seeds=(seed,)))
        assert all(torch.equal(a[index][0], b[0][0]) for a, b in zip(together, alone, strict=True))
    assert not torch.equal(together[0][0][0], together[0][1][0])


def test_epochs_differ_and_repeat():
    batches = sampler(30, size=30)
    orders = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        orders.append(next(iter(batches))[0][0].tolist())
    assert orders[0] == orders[2] != orders[1]


def test_batches_are_normalised_by_channel(data):
    view = data.batches(size=60, seeds=[0])
    ((images, labels, total),) = next(iter(view.train_dataloader()))
    assert total == 60
    assert labels.bincount().tolist() == [20, 20, 20]
    bytes_back = data.normalization.denormalize(images) * 255
    torch.testing.assert_close(bytes_back.round(), bytes_back, atol=1e-4, rtol=0)
    assert images[:, 1].std() > 1.5 * images[:, 0].std()


def test_test_images_come_once_in_order(data):
    labels = torch.cat([labels for _, labels, _ in data.test_batches()])
    assert torch.equal(labels, data.splits.test.labels)


def test_per_class_selects_the_first_images_of_each_class(data):
    subset = ImageData(source=Blobs(), mean=0.5, std=0.5, batch_size=4, per_class=3, total=None)
    subset.setup()
    whole = data.splits.train
    assert subset.splits.train.labels.bincount().tolist() == [3, 3, 3]
    for label in range(3):
        expected = whole.images[whole.labels == label][:3]
        assert torch.equal(
            subset.splits.train.images[subset.splits.train.labels == label], expected
        )
    assert len(subset.splits.test) == len(data.splits.test)


def test_the_fingerprint_depends_on_the_training_images_only(data):
    assert data.fingerprint() == image_data().fingerprint()
    other = image_data()
    other.splits.train.labels[0] = 2
    assert data.fingerprint() != other.fingerprint()
    assert data.test_fingerprint() == other.test_fingerprint() != data.fingerprint()
    other.splits.test.images[-1, 0, 0, 0] ^= 1
    assert data.test_fingerprint() != other.test_fingerprint()


def test_the_fingerprint_is_the_digest_of_the_bytes(data):
    """Stored experts are found by fingerprints: they must not change."""
    train = data.splits.train
    digest = hashlib.sha256(
        b"(torch.Size([60, 2, 4, 4]), ('left', 'middle', 'right'), "
        b"Normalization(mean=(0.5, 0.5), std=(0.5, 0.25)))"
    )
    digest.update(bytes(train.images.flatten().tolist()))
    digest.update(b"".join(label.to_bytes(8, "little") for label in train.labels.tolist()))
    assert data.fingerprint() == digest.hexdigest()


@pytest.mark.parametrize("per_class", [None, 3])
def test_training_images_may_be_absent(data, per_class):
    test_only = image_data(BlobsWithoutTraining(), per_class=per_class)
    assert len(test_only.splits.train) == len(test_only.corrupted.is_corrupted) == 0
    assert test_only.image_shape == data.image_shape
    assert test_only.normalization == data.normalization
    assert (
        test_only.fingerprint()
        == image_data(BlobsWithoutTraining()).fingerprint()
        != data.fingerprint()
    )
    assert sum(count for _, _, count in test_only.test_batches()) == 16


class BlobsWithSynsets(Blobs):
    """Blobs whose classes have WordNet nouns."""

    def load(self):
        return replace(super().load(), synsets=("n00000001", "n00000002", "n00000003"))


def test_synsets_do_not_change_the_fingerprint(data):
    named = ImageData(
        source=BlobsWithSynsets(), mean=0.5, std=[0.5, 0.25], batch_size=7, per_class=20, total=None
    )
    named.setup()
    assert named.splits.synsets == ("n00000001", "n00000002", "n00000003")
    assert named.fingerprint() == data.fingerprint()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "data.batch_size"),
        ({"per_class": 0}, "data.per_class"),
        ({"total": 0}, "data.total"),
        ({"mean": [0.5, 0.5, 0.5]}, "3 and 1 values|3 and 2 values"),
        ({"std": 0.0}, "above 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    arguments = {"mean": 0.5, "std": 0.5, "batch_size": 4, "per_class": None, "total": None}
    arguments |= settings
    with pytest.raises(ValueError, match=message):
        ImageData(source=Blobs(), **arguments).setup()


def test_an_empty_batch_is_refused(data):
    with pytest.raises(ValueError, match="1 or more"):
        data.batches(size=0, seeds=[0])


@pytest.mark.parametrize(("total", "counts"), [(100, [8, 20, 3]), (20, [8, 9, 3]), (9, [3, 3, 3])])
def test_the_total_is_divided_equally_among_the_classes(total, counts):
    sizes = [8, 20, 3]
    labels = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 2, 4, 4)

    class Unequal(Blobs):
        def load(self):
            return replace(super().load(), train=ImageSet(images.contiguous(), labels))

    data = image_data(Unequal(), total=total)
    train = data.splits.train
    assert train.labels.bincount().tolist() == counts
    assert [train.images[train.labels == c][0, 0, 0, 0].item() for c in range(3)] == [0, 8, 28]


def test_a_total_below_the_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="give at least 3"):
        image_data(total=2)
