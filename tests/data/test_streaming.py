"""Images decoded from disk give the results of images in memory, and what changed is refused."""

import logging
import os
import pickle

import pytest
import torch
from PIL import Image
from support.builders import image_data, small_convnet, train_experts
from support.encoded_images import image_tree
from support.pictures import UNSET, write_image

from cwx.cli.failures import explain_failure
from cwx.data import streamed_images
from cwx.data.corruption import Backdoor, LabelNoise
from cwx.data.cover_backdoor import CoverBackdoor
from cwx.data.datasets.folders import ClassFolders, ImageFolder
from cwx.data.samples import sample_images
from cwx.data.splits import ImageSet
from cwx.data.streamed_images import StreamedImages
from cwx.data.watermark import Watermark
from cwx.data.worker_loader import WorkerLoader
from cwx.evaluations.backdoor.attack_success import attacked_images
from cwx.functional.adaptive_triggers import AdaptivePatch, FaintPatch
from cwx.functional.backdoor import AllToOne, Blend, Face, Patch, Sinusoid
from cwx.functional.label_noise import Uniform
from cwx.storage.trajectories import TrajectoryStore


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return image_tree(tmp_path_factory.mktemp("images"), ["png"], digits=1)


@pytest.fixture
def copied(images, tmp_path):
    for file in images.rglob("*.png"):
        copy = tmp_path / "copy" / file.relative_to(images)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    return tmp_path / "copy"


def folder(root, storage, *, manifests, **settings):
    source = ImageFolder(root=str(root), **{**UNSET, "size": 8})
    settings = {"mean": 0.5, "std": 0.25, "workers": 0, **settings}
    return image_data(source, storage=storage, manifests=str(manifests), **settings)


@pytest.fixture
def both(images, tmp_path):
    """The same data in memory and on disk."""
    return [folder(images, storage, manifests=tmp_path) for storage in ("memory", "disk")]


def assert_same(first: ImageSet, second: ImageSet):
    assert torch.equal(first.labels, second.labels)
    assert torch.equal(first.images[:], second.images[:])


def test_files_give_the_pixels_of_memory_however_they_are_indexed(both):
    memory, disk = (data.splits.train.images for data in both)
    assert isinstance(disk, StreamedImages)
    assert (disk.shape, disk.dtype, disk.ndim) == (memory.shape, memory.dtype, memory.ndim)
    mask = torch.arange(len(memory)) % 4 == 1
    for index in (3, -1, slice(2, 9, 3), [4, 4, 0], mask, torch.tensor([[5, 1], [1, 8]])):
        assert torch.equal(disk[index], memory[index])
    assert torch.equal(disk[:0], memory[:0])
    for size in (1, 7, 100):
        parts = zip(disk.split(size), memory.split(size), strict=True)
        assert all(torch.equal(a, b) for a, b in parts)


def test_a_pass_returns_the_memory_of_each_part(both, monkeypatch):
    """With glibc, a pass over 200,000 images would else take 2 GB more than one over few."""
    memory, disk = (data.splits.train.images for data in both)
    released = []
    monkeypatch.setattr(streamed_images, "_CHUNK", 4 * 3 * 8 * 8)
    monkeypatch.setattr(streamed_images, "release_freed_memory", lambda: released.append(1))
    assert torch.equal(torch.cat([*disk.chunks()]), memory)
    assert len(released) == -(-len(memory) // 4) > 1


@pytest.mark.parametrize("settings", [{}, {"per_class": 4}, {"total": 20}])
def test_limits_views_and_samples_are_those_of_memory(images, tmp_path, settings):
    memory, disk = (
        folder(images, storage, manifests=tmp_path, **settings) for storage in ("memory", "disk")
    )
    assert_same(memory.splits.train, disk.splits.train)
    assert_same(memory.splits.test.spread(5), disk.splits.test.spread(5))
    dropped = torch.arange(len(memory.splits.train)) % 3 == 0
    assert_same(memory.without(dropped).splits.train, disk.without(dropped).splits.train)
    expected, samples = sample_images(memory.splits), sample_images(disk.splits)
    assert expected.keys() == samples.keys()
    assert all(torch.equal(expected[name], samples[name]) for name in expected)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_those_of_memory_with_any_number_of_workers(images, tmp_path, workers):
    memory, disk = (
        folder(images, storage, manifests=tmp_path, workers=workers)
        for storage in ("memory", "disk")
    )
    for a, b in zip(memory.test_batches(), disk.test_batches(), strict=True):
        assert all(
            torch.equal(torch.as_tensor(x), torch.as_tensor(y)) for x, y in zip(a, b, strict=True)
        )
    loaders = [data.batches(size=8, seeds=[3, 4]).train_dataloader() for data in (memory, disk)]
    for epoch in (0, 1, 5):
        drawn = []
        for loader in loaders:
            torch.manual_seed(epoch)
            loader.sampler.set_epoch(epoch)
            batches = list(loader)
            # Layers such as dropout draw from the global state: it must not depend on workers.
            drawn.append((batches, torch.get_rng_state()))
        (expected, state), (streamed, same_state) = drawn
        assert torch.equal(state, same_state)
        for a, b in zip(expected, streamed, strict=True):
            for x, y in zip(a, disk.on_after_batch_transfer(b, 0), strict=True):
                assert torch.equal(x.images, y.images)
                assert torch.equal(x.labels, y.labels)
                assert x.total == y.total


@pytest.mark.parametrize("workers", [0, 2])
def test_many_images_pass_through_workers(images, tmp_path, monkeypatch, workers):
    monkeypatch.setattr("cwx.data.streamed_images._LEAST_FOR_WORKERS", 2)
    memory, disk = (
        folder(images, storage, manifests=tmp_path, workers=workers)
        for storage in ("memory", "disk")
    )
    state = torch.get_rng_state()
    assert_same(memory.splits.test, disk.splits.test)
    for a, b in zip(memory.test_batches(), disk.test_batches(), strict=True):
        assert torch.equal(a.images, b.images)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("first", "step"), [(0, 1), (0, 2), (1, 2), (2, 3), (90, 91)])
def test_a_rank_decodes_the_images_of_its_batches_alone(
    images, tmp_path, monkeypatch, workers, first, step
):
    memory, disk = (
        folder(images, storage, manifests=tmp_path, workers=workers, batch_size=4)
        for storage in ("memory", "disk")
    )
    selected = []
    select = StreamedImages.select

    def spy(images, indices):
        selected.append(indices)
        return select(images, indices)

    monkeypatch.setattr(StreamedImages, "select", spy)
    expected = list(memory.test_batches())[first::step]
    for data in (memory, disk):
        batches = list(data.test_batches(first=first, step=step))
        for a, b in zip(expected, batches, strict=True):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.labels, b.labels)
            assert a.total == b.total
    assert sum(map(len, selected)) == sum(batch.total for batch in expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_from_disk_is_training_from_memory(images, tmp_path, workers):
    trained = []
    for storage in ("memory", "disk"):
        data = folder(images, storage, manifests=tmp_path, workers=workers)
        store = TrajectoryStore(tmp_path / storage)
        trained += [train_experts(data, [3, 4], store, network=small_convnet, epochs=2)]
    for memory, disk in zip(*trained, strict=True):
        for epoch in memory.recorded_epochs:
            expected, state = memory.state(epoch), disk.state(epoch)
            assert all(torch.equal(expected[name], state[name]) for name in expected)


PATCH = Patch(size=3, corner="top-left", margin=0, first_pixel="white")
CORRUPTIONS = {
    "patch": Backdoor(trigger=PATCH, target=1, rate=0.3, variant=AllToOne(), seed=2),
    "blend": Backdoor(
        trigger=Blend(picture=Face(), ratio=0.2),
        target="cat",
        rate=0.2,
        variant=AllToOne(),
        seed=0,
    ),
    "sinusoid": Backdoor(
        trigger=Sinusoid(delta=20.0, frequency=2.0), target=0, rate=0.5, variant=AllToOne(), seed=0
    ),
    "noise": LabelNoise(kind=Uniform(), rate=0.5, seed=1),
    "watermark": Watermark(trigger=PATCH, target=2, fraction=0.8, replaced=0.4, seed=3),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_changes_the_same_pixels_and_labels(both, name):
    clean = [data.fingerprint() for data in both]
    memory, disk = (data.corrupt(CORRUPTIONS[name]) for data in both)
    assert_same(memory.images, disk.images)
    assert torch.equal(memory.is_corrupted, disk.is_corrupted)
    assert both[0].changes.metrics() == pytest.approx(both[1].changes.metrics())
    assert both[1].fingerprint() != clean[1]
    assert isinstance(disk.images.images, StreamedImages)
    if memory.backdoor is not None and not memory.backdoor.is_watermark:
        attacked = [attacked_images(memory.backdoor, data.splits.test) for data in both]
        assert_same(*attacked)


def test_a_corruption_that_needs_all_images_is_refused(both):
    trigger = AdaptivePatch(patches=[FaintPatch(patch=PATCH, opacity=0.5, in_test=True)])
    corruption = CoverBackdoor(
        trigger=trigger, target=0, rate=0.2, cover_rate=0.2, variant=AllToOne(), seed=0
    )
    with pytest.raises(ValueError, match="set data.storage=memory"):
        both[1].corrupt(corruption)


def test_the_identity_is_that_of_the_content(images, copied, tmp_path):
    original, copy, workers = (
        folder(root, "disk", manifests=tmp_path / f"m{n}", workers=n)
        for n, root in enumerate((images, copied, images))
    )
    assert original.fingerprint() == copy.fingerprint() == workers.fingerprint()
    assert original.fingerprint() != original.test_fingerprint()
    assert original.without(torch.arange(33) == 4).fingerprint() != original.fingerprint()
    write_image(copied / "train/bee/3.png")
    changed = folder(copied, "disk", manifests=tmp_path / "m1")
    assert changed.fingerprint() != original.fingerprint()
    assert changed.test_fingerprint() == original.test_fingerprint()


def test_the_manifest_is_read_again_instead_of_the_files(copied, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    first = folder(copied, "disk", manifests=tmp_path)
    assert "51 of 51 image files are new or changed" in caplog.text
    caplog.clear()
    assert folder(copied, "disk", manifests=tmp_path).fingerprint() == first.fingerprint()
    assert "new or changed" not in caplog.text
    # A file of the same content and another time is read once more, and is the same.
    os.utime(copied / "train/ant/2.png", ns=(1, 1))
    assert folder(copied, "disk", manifests=tmp_path).fingerprint() == first.fingerprint()
    assert "1 of 51 image files are new or changed" in caplog.text
    caplog.clear()
    write_image(copied / "train/ant/2.png")
    folder(copied, "disk", manifests=tmp_path)
    assert "1 image files have another content" in caplog.text
    assert "train/ant/2.png" in caplog.text


def test_what_a_killed_process_left_of_a_manifest_is_removed(images, tmp_path):
    folder(images, "disk", manifests=tmp_path)
    (manifest,) = tmp_path.glob("*.safetensors")
    left = manifest.with_name(f".{manifest.name}.a1b2c3d4.part")
    other = tmp_path / ".others.safetensors.a1b2c3d4.part"
    for file in (left, other):
        file.write_bytes(b"half")
    folder(images, "disk", manifests=tmp_path)
    assert not left.exists()
    # Another process may be writing that manifest.
    assert other.exists()


def test_a_damaged_manifest_is_written_anew(images, tmp_path):
    first = folder(images, "disk", manifests=tmp_path).fingerprint()
    (file,) = tmp_path.glob("*.safetensors")
    for content in (b"", b"no", file.read_bytes()[:-7]):
        file.write_bytes(content)
        assert folder(images, "disk", manifests=tmp_path).fingerprint() == first


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_vanishes_or_changes_stops_the_run_by_name(copied, tmp_path, workers):
    file = copied / "train/bee/7.png"
    content, status = file.read_bytes(), file.stat()
    data = folder(copied, "disk", manifests=tmp_path, workers=workers)
    view = data.batches(size=8, seeds=[0])
    assert len(list(view.train_dataloader())) == 5
    file.unlink()
    with pytest.raises(ValueError, match="7.png cannot be read any more .*continue with resume"):
        list(view.train_dataloader())
    write_image(file, size=(8, 9))
    with pytest.raises(ValueError, match=r"bee/7.png has changed since the images were listed"):
        list(view.train_dataloader())
    # The same file, put back at another time.
    file.write_bytes(content)
    assert file.stat().st_mtime_ns != status.st_mtime_ns
    assert len(list(view.train_dataloader())) == 5


class Broken:
    """A data set whose worker has ended while it sent an item."""

    def __getitem__(self, index):
        raise ConnectionResetError("Connection reset by peer")


def test_a_worker_that_ends_is_said_as_no_bug():
    with pytest.raises(RuntimeError, match="DataLoader worker") as failed:
        list(WorkerLoader(Broken(), [0], workers=0))
    killed = RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. \nMore.")
    for error in (failed.value, killed):
        message = explain_failure(error, "runs/x")
        assert message.startswith("a process that decodes images has ended (DataLoader worker")
        assert message.endswith("lower data.workers, then continue with resume=runs/x")


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_a_damaged_file_is_named_or_skipped(copied, tmp_path, caplog, storage):
    for name in ("train/bee/7.png", "test/ant/0.png"):
        (copied / name).write_bytes((copied / name).read_bytes()[:60])
    with pytest.raises(ValueError, match=r"bee/7.png cannot be read as an image"):
        folder(copied, storage, manifests=tmp_path)
    data = folder(copied, storage, manifests=tmp_path, on_error="skip")
    assert "2 of 51 image files cannot be read and are left out" in caplog.text
    assert "7.png" in caplog.text
    assert data.splits.train.labels.bincount().tolist() == [11, 10, 11]
    assert data.splits.test.labels.bincount().tolist() == [5, 6, 6]
    assert data.splits.train.images[:].shape[0] == 32
    # The same images at another size, as the check of the accuracy reads them.
    indices = torch.tensor([0, 5, 16])
    numbers = data.splits.test_file_numbers(indices)
    assert numbers.tolist() == [1, 6, 17]
    assert_same(data.source.with_size(8, None).test_images(numbers), data.splits.test.at(indices))


def test_images_that_a_setting_could_explain_are_not_skipped(copied, tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 9)).save(copied / "train/ant/0.png")
    with pytest.raises(ValueError, match="set data.source.background"):
        folder(copied, "disk", manifests=tmp_path, on_error="skip")


def test_a_split_without_any_readable_image_is_refused(copied, tmp_path):
    for file in (copied / "test").rglob("*.png"):
        file.write_bytes(b"no")
    with pytest.raises(ValueError, match="none of the 18 test images"):
        folder(copied, "disk", manifests=tmp_path, on_error="skip")


def test_images_of_two_sizes_are_refused_as_in_memory(copied, tmp_path):
    write_image(copied / "train/bee/7.png", size=(5, 5))
    for storage in ("memory", "disk"):
        source = ImageFolder(root=str(copied), **UNSET)
        with pytest.raises(ValueError, match=r"ant/0.png is 8x9, .*bee/7.png is 5x5; set data"):
            image_data(source, storage=storage, manifests=str(tmp_path), std=0.5)


def test_the_choice_follows_the_memory(images, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    size = 51 * 3 * 8 * 8
    for memory, on_disk in ((10 * size - 10, True), (10 * size + 10, False)):
        monkeypatch.setattr("cwx.data.file_splits.total_memory", lambda memory=memory: memory)
        data = folder(images, "auto", manifests=tmp_path, memory_share=0.1)
        assert isinstance(data.splits.train.images, StreamedImages) is on_disk
    assert "data.storage=auto: 51 decoded images take 0.00 GB, more than 0.1" in caplog.text
    assert "not more than 0.1" in caplog.text


def test_a_folder_of_test_images_is_streamed(images, tmp_path):
    settings = {**UNSET, "root": str(images / "test"), "classes": None, "resize": None}
    memory, disk = (
        image_data(
            ClassFolders(**settings, images=10),
            storage=storage,
            manifests=str(tmp_path),
            std=0.5,
            workers=0,
        )
        for storage in ("memory", "disk")
    )
    assert_same(memory.splits.test, disk.splits.test)
    assert len(disk.splits.train) == 0


def test_other_sources_and_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the images of Blobs are no files"):
        image_data(storage="disk", manifests=str(tmp_path))
    for settings, message in (
        ({"storage": "tape"}, "data.storage is 'tape': give one of memory, disk, auto"),
        ({"on_error": "ask"}, "data.on_error is 'ask'"),
        ({"memory_share": 0.0}, "data.memory_share is 0.0"),
        ({"workers": -1}, "data.workers is -1"),
        ({"storage": "disk"}, "data.manifests is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            image_data(**settings)


def test_streamed_images_can_be_sent_to_other_processes(both):
    disk = both[1].splits.test.images
    sent = pickle.loads(pickle.dumps(disk))
    assert torch.equal(sent[:], disk[:])
