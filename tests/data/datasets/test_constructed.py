"""Reading constructed training sets, and the errors for invalid ones."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from cwx.data.datasets.constructed import read_constructed
from cwx.storage.shards import Shards

IMAGES = torch.linspace(0, 1, 6 * 3 * 4 * 4).view(6, 3, 4, 4)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
BYTES = (IMAGES * 255).round().to(torch.uint8)


def write_published(folder, images, labels):
    """A folder as published with the paper: torch files with a tensor or a list of tensors."""
    folder.mkdir(exist_ok=True)
    for name, value in (("CIFAR_ims", images), ("CIFAR_lab", labels)):
        torch.save(value, folder / name)
    return folder


def write_shards(folder, images, labels):
    shards = Shards(folder, count=len(labels), size=4)
    for number in range(len(shards)):
        rows = shards.rows(number)
        shards.write(number, {"images": images[rows], "labels": labels[rows]})
    shards.complete()
    return folder


def write_safetensors(folder, images, labels):
    folder.mkdir()
    save_file({"images": images, "labels": labels}, folder / "set.safetensors")
    return folder / "set.safetensors"


@pytest.mark.parametrize(
    ("write", "images", "labels"),
    [
        (write_published, IMAGES, LABELS),
        (write_published, list(IMAGES.split(4)), list(LABELS.split(4))),
        (write_published, list(IMAGES.double()), list(LABELS.int().split(1))),
        (write_shards, BYTES, LABELS),
        (write_safetensors, BYTES, LABELS),
        (write_safetensors, IMAGES, LABELS),
    ],
)
def test_every_format_is_read(tmp_path, write, images, labels):
    if images.__class__ is list and images[0].ndim == 3:
        images = [image[None] for image in images]
    image_set = read_constructed(write(tmp_path / "set", images, labels))
    assert torch.equal(image_set.images, BYTES)
    assert image_set.images.dtype == torch.uint8
    assert torch.equal(image_set.labels, LABELS)
    assert image_set.labels.dtype == torch.int64


def test_torch_files_of_before_2020_are_read(tmp_path):
    folder = write_published(tmp_path, [IMAGES], [LABELS])
    torch.save([IMAGES], folder / "CIFAR_ims", _use_new_zipfile_serialization=False)
    assert torch.equal(read_constructed(folder).images, BYTES)


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


@pytest.mark.parametrize("whole", [True, False], ids=["torch", "pickle"])
def test_no_code_in_a_file_is_run(tmp_path, whole):
    folder, mark = write_published(tmp_path / "set", IMAGES, LABELS), tmp_path / "mark"
    if whole:
        torch.save([IMAGES, Malicious(mark)], folder / "CIFAR_ims")
    else:
        (folder / "CIFAR_ims").write_bytes(pickle.dumps(Malicious(mark)))
    with pytest.raises(
        ValueError,
        match="is not plain tensors: reading it would run code of io.open; no code in it was run",
    ):
        read_constructed(folder)
    assert not mark.exists()


WRONG = {
    "a dictionary": ({"a": IMAGES}, LABELS, "holds a dict, not a tensor or a list"),
    "numbers": ([1, 2], LABELS, "holds a list, not a tensor or a list of"),
    "nothing": ([], LABELS, "holds an empty list, not a tensor"),
    "shapes": ([IMAGES, IMAGES[..., :2]], LABELS, "cannot be concatenated"),
    "flat": (IMAGES.flatten(1), LABELS, "give images"),
    "too few labels": (IMAGES, LABELS[:5], r"labels of shape \(5,\): give images"),
    "no image": (IMAGES[:0], LABELS[:0], r"images of shape \(0, 3, 4, 4\)"),
    "soft labels": (IMAGES, LABELS.float(), "labels of torch.float32: give integer"),
    "whole pixels": ((IMAGES * 255).long(), LABELS, "images of torch.int64: give floats"),
    "normalised": (IMAGES * 4 - 2, LABELS, "pixels in -2-2: give floats in 0-1"),
    "not a number": (IMAGES / 0, LABELS, "not finite .* give floats in 0-1"),
    "infinite": (IMAGES / 0.0 + 1, LABELS, "not finite"),
    "minus infinite": (-IMAGES[1:] / 0, LABELS[1:], "not finite"),
    "no height": (IMAGES[:, :, :0], LABELS, r"images of shape \(6, 3, 0, 4\)"),
    "no channel": (BYTES[:, :0], LABELS, r"images of shape \(6, 0, 4, 4\)"),
    "no image in a list": ([IMAGES[:0]], [LABELS[:0]], r"images of shape \(0, 3, 4, 4\)"),
    "meta": (IMAGES.to("meta"), LABELS, "CIFAR_ims holds a tensor .*meta.*: save it anew as plain"),
    "meta labels": (IMAGES, LABELS.to("meta"), "CIFAR_lab holds a tensor .*meta"),
    "complex": (IMAGES + 0j, LABELS, "CIFAR_ims holds a tensor of torch.complex64"),
    "complex labels": (IMAGES, LABELS + 0j, "CIFAR_lab holds a tensor of torch.complex64"),
    "bool": (IMAGES > 0.5, LABELS, "images of torch.bool: give floats"),
    "bool labels": (IMAGES, LABELS > 0, "labels of torch.bool: give integer"),
    "small floats": (IMAGES.to(torch.float8_e5m2), LABELS, "images of torch.float8_e5m2"),
    "small labels": (IMAGES, LABELS.to(torch.float8_e5m2), "labels of torch.float8_e5m2"),
    "types": ([IMAGES, BYTES], LABELS.repeat(2), "tensors of torch.float32 and torch.uint8"),
    "one label": (IMAGES, LABELS[0], "CIFAR_lab holds tensors that cannot be concatenated"),
    "columns of labels": (IMAGES, LABELS[:, None], r"labels of shape \(6, 1\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_invalid_set_is_refused(tmp_path, case):
    images, labels, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as caught:
        read_constructed(write_published(tmp_path, images, labels))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


# PyTorch warns that these kinds of tensors are new or deprecated.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "convert",
    [
        lambda: torch.quantize_per_tensor(IMAGES, 1 / 255, 0, torch.quint8),
        lambda: torch.nested.nested_tensor([*IMAGES]),
        lambda: IMAGES.flatten(1).to_sparse_csr(),
        lambda: IMAGES.to_sparse(),
        lambda: [IMAGES, IMAGES.to_sparse()],
    ],
    ids=["quantised", "nested", "sparse rows", "sparse", "sparse part"],
)
def test_a_tensor_that_is_not_dense_is_refused(tmp_path, convert):
    folder = write_published(tmp_path, convert(), LABELS)
    with pytest.raises(ValueError, match="CIFAR_ims (holds a|is)") as caught:
        read_constructed(folder)
    assert "\n" not in str(caught.value)


def test_a_small_file_that_declares_a_large_set_is_refused(tmp_path):
    # Strides of 0 declare 6 GB; a list may also repeat one tensor.
    for images in (IMAGES[:1].expand(30_000_000, -1, -1, -1), [IMAGES.repeat(9, 1, 1, 1)] * 9000):
        folder = write_published(tmp_path, images, LABELS)
        with pytest.raises(ValueError, match="CIFAR_ims has .* bytes, but its tensors would take"):
            read_constructed(folder)


def test_a_set_with_gradients_is_read(tmp_path):
    parameters = torch.nn.Parameter(IMAGES.clone())
    assert torch.equal(
        read_constructed(write_published(tmp_path, parameters, LABELS)).images, BYTES
    )


def test_a_missing_or_damaged_part_is_named(tmp_path):
    (write_published(tmp_path / "half", IMAGES, LABELS) / "CIFAR_lab").unlink()
    save_file({"images": BYTES}, tmp_path / "few.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"{")
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name, message in (
        ("half", "CIFAR_lab cannot be read .No such file or directory.: name an"),
        ("none", "none is not a constructed set: give a folder with CIFAR_ims and CIFAR_lab"),
        ("few.safetensors", "has no tensor labels, only images"),
        ("cut.safetensors", "is damaged or missing"),
        ("pipe.safetensors", "a named pipe, not a regular file"),
    ):
        with pytest.raises(ValueError, match=message):
            read_constructed(tmp_path / name)
