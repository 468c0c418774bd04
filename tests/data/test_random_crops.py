"""Random crops are those of torchvision, and depend on seed, epoch and image alone."""

import pytest
import torch
from PIL import Image
from support.builders import image_data
from support.pictures import UNSET
from torchvision.transforms import v2
from torchvision.transforms.functional import pil_to_tensor

from cwx.data.corruption import Backdoor
from cwx.data.datasets.folders import ImageFolder
from cwx.data.random_crops import RandomCrops
from cwx.functional.backdoor import AllToOne, Patch
from cwx.functional.rng import stream

CROPS = RandomCrops(smallest_area=0.2, largest_ratio=1.5, flip=0.5)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 9), ("test", 2)):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(0, 256, (20, 30, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(root / split / name / f"{i}.png")
    return root


def loaded(root, manifests, **settings):
    defaults = {"storage": "disk", "workers": 0, "std": 0.5, "random_crops": CROPS}
    source = ImageFolder(root=str(root), **{**UNSET, "size": 8})
    return image_data(source, manifests=str(manifests), **{**defaults, **settings})


def epoch_of(data, epoch, *, size=5, seeds=(3,)):
    """The images of each seed in an epoch, in the order of the data set, and the labels."""
    loader = data.batches(size=size, seeds=seeds).train_dataloader()
    loader.sampler.set_epoch(epoch)
    steps = list(loader)
    by_seed = []
    for place, seed in enumerate(seeds):
        order = torch.randperm(18, generator=stream(seed, epoch))
        images = torch.cat([step[place].images for step in steps])
        by_seed.append(images[order.argsort()])
    return by_seed


def test_crops_are_those_of_torchvision(root, tmp_path):
    (images,) = epoch_of(loaded(root, tmp_path), 2)
    assert images.shape == (18, 3, 8, 8)
    transform = v2.Compose(
        [v2.RandomResizedCrop([8, 8], (0.2, 1), (1 / 1.5, 1.5)), v2.RandomHorizontalFlip(0.5)]
    )
    for index, file in enumerate(sorted((root / "train").rglob("*.png"))):
        torch.set_rng_state(stream(0x63726F70, 3, 2, index).get_state())
        with Image.open(file) as image:
            assert torch.equal(images[index], pil_to_tensor(transform(image)))


def test_they_depend_on_the_seed_the_epoch_and_the_image_alone(root, tmp_path):
    data = loaded(root, tmp_path)
    state = torch.get_rng_state()
    (images,) = epoch_of(data, 1)
    assert torch.equal(images, epoch_of(data, 1, size=4, seeds=(8, 3))[1])
    assert torch.equal(images, epoch_of(loaded(root, tmp_path, workers=2), 1)[0])
    for other in (epoch_of(data, 2), epoch_of(data, 1, seeds=(4,))):
        assert (images != other[0]).flatten(1).any(1).all()
    # Every loader draws one seed of the global state, and torchvision none.
    torch.set_rng_state(state)
    for _ in range(5):
        torch.empty((), dtype=torch.int64).random_()
    expected = torch.get_rng_state()
    torch.set_rng_state(state)
    for _ in range(5):
        epoch_of(data, 1)
    assert torch.equal(torch.get_rng_state(), expected)


def test_flips_alone_keep_the_image(root, tmp_path):
    whole = loaded(root, tmp_path, random_crops=None).splits.train.images[:]
    always = loaded(root, tmp_path, random_crops=RandomCrops(flip=1.0))
    assert torch.equal(epoch_of(always, 0)[0], whole.flip(3))
    never = RandomCrops(flip=0.0)
    assert not never.is_active
    assert torch.equal(epoch_of(loaded(root, tmp_path, random_crops=never), 0)[0], whole)


def test_networks_trained_on_crops_have_another_identity(root, tmp_path):
    without = loaded(root, tmp_path, random_crops=None)
    crops, flips = (
        loaded(root, tmp_path, random_crops=given) for given in (CROPS, RandomCrops(flip=0.5))
    )
    assert len({data.fingerprint() for data in (without, crops, flips)}) == 3
    assert without.test_fingerprint() == crops.test_fingerprint()
    # Evaluation sees whole images.
    assert torch.equal(without.splits.test.images[:], crops.splits.test.images[:])


def test_images_in_memory_and_changed_pixels_are_refused(root, tmp_path):
    with pytest.raises(ValueError, match="set data.storage=disk"):
        loaded(root, tmp_path, storage="memory")
    data = loaded(root, tmp_path)
    patch = Patch(size=3, corner="top-left", margin=0, first_pixel="white")
    with pytest.raises(ValueError, match="changes their pixels"):
        data.corrupt(Backdoor(trigger=patch, target=1, rate=0.3, variant=AllToOne(), seed=2))
    with pytest.raises(ValueError, match="these training images are in memory"):
        data.training_view(data.splits.test.resident())


@pytest.mark.parametrize("settings", [{"smallest_area": 0.0}, {"largest_ratio": 0.5}, {"flip": 2}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match="data.random_crops has"):
        RandomCrops(**settings)
