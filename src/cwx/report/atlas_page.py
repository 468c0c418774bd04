"""The page of the atlas of neurons: a table of all units, and the top images of each."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from safetensors.numpy import load

from cwx.report.render import render
from cwx.report.run import RunContents
from cwx.report.sprites import ACROSS, Sprites, make_sprites
from cwx.storage.atomic import write_text
from cwx.storage.json_files import parse_json
from cwx.storage.regular_files import read_regular
from cwx.storage.run_files import ATLAS, ATLAS_IMAGES, ATLAS_METADATA

PAGE = "neuron_atlas.html"
# Bytes of the files, units of all networks together, networks, classes and layers of a page.
MAX_FILE_BYTES, MAX_UNITS = 2**29, 60_000
MAX_NETWORKS, MAX_CLASSES, MAX_LAYERS = 10, 50_000, 5_000
SETS = ("real", "adversarial")
# Columns of the table, and those of a unit's images, with the types that the page reads.
MEASURES = {
    "layer": "<i4", "unit": "<i4", "class": "<i4", "class_fraction": "<f4", "lc": "<f4",
    "cs1": "<f4", "cs2": "<f4", "fires": "<f4", "detection": "<f4",
}  # fmt: skip
DETAILS = {"detection_error": "<f4", "cs1_permuted": "<f4", "cs2_permuted": "<f4"}
IMAGES = {
    "images": "<i4", "activations": "<f4", "boxes": "<i2", "labels": "<i4", "targets": "<i4",
}  # fmt: skip
_OPTIONAL = frozenset({"cs1", "cs2", "cs1_permuted", "cs2_permuted"})
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Block:
    """An array in the page: whose it is, its type, and its bytes in base64."""

    network: int
    name: str
    type: str
    content: str


@dataclass(frozen=True)
class Atlas:
    """The atlas of a run.

    Attributes:
        about: what the page says of it, and the names of networks, layers and classes.
        table, details: arrays that the table and an opened unit need.
    """

    about: Mapping[str, Any]
    table: Sequence[Block]
    details: Sequence[Block]


def write_atlas(run: RunContents, *, title: str) -> None:
    """Write ``neuron_atlas.html`` for a run, if it has an atlas.

    Text from the run is escaped; the page loads nothing.

    Args:
        title: the run's experiment.
    """
    atlas = run.read(ATLAS, lambda file: _read_atlas(file, run.left_out))
    if atlas is None:
        return
    sprites = run.read(ATLAS_IMAGES, _read_images) or {}
    about = {**atlas.about, "across": ACROSS, "sets": _set_layouts(sprites)}
    text = render(
        "atlas.html.j2",
        body_script="atlas.js",
        title=title,
        about=Markup(_json(about)),
        units=sum(layer["units"] for layer in about["networks"][0]["layers"]),
        networks=[network["name"] for network in about["networks"]],
        has_cs=about["has_cs"],
        test_images=about["test_images"],
        adversarial_images=about["adversarial_images"],
        table=atlas.table,
        details=[*atlas.details, *(_index_block(name, it[0]) for name, it in sprites.items())],
        sprites={name: images.uris for name, (_, images) in sprites.items()},
    )
    write_text(run.folder / PAGE, text)


def _set_layouts(sprites: Mapping[str, tuple[Array, Sprites]]) -> dict[str, Any]:
    return {
        name: {"size": images.size, "pitch": images.pitch} for name, (_, images) in sprites.items()
    }


def _index_block(name: str, indices: Array) -> Block:
    return Block(-1, f"{name}/indices", "i4", _base64(indices.astype("<i4")))


def _read_atlas(file: Path, left_out: list[str]) -> Atlas:
    content = read_regular(file, MAX_FILE_BYTES)
    tensors, about = load(content), parse_json(_metadata(content)[ATLAS_METADATA])
    classes = [str(name) for name in about["classes"]]
    networks = [(str(name), _layers(of)) for name, of in about["networks"].items()]
    if not networks or max(len(networks) / MAX_NETWORKS, len(classes) / MAX_CLASSES) > 1:
        raise ValueError(f"it has {len(networks)} networks and {len(classes)} classes")
    table: list[Block] = []
    details: list[Block] = []
    most = MAX_UNITS // len(networks)
    for number, (name, layers) in enumerate(networks):
        columns = {
            key.removeprefix(f"{name}/"): values
            for key, values in tensors.items()
            if key.startswith(f"{name}/")
        }
        _check(columns, layers, len(classes))
        units = len(columns["unit"])
        if units > most:
            left_out.append(f"{units - most:,} of {units:,} units of {name} in {PAGE}")
        table += _blocks(number, columns, MEASURES, most)
        details += _blocks(number, columns, DETAILS, most)
        for kind in SETS:
            wanted = {f"{kind}/{column}": dtype for column, dtype in IMAGES.items()}
            details += _blocks(number, columns, wanted, most)
    shape = [int(length) for length in about["image_shape"]]
    summary = {
        "networks": [{"name": name, "layers": layers} for name, layers in networks],
        "classes": classes,
        "image_size": shape[1:],
        "images": int(about["images"]),
        "test_images": int(about["test_images"]),
        "adversarial_images": int(about["adversarial_images"]),
        "has_cs": any(block.name == "cs1" for block in table),
    }
    return Atlas(summary, table, details)


def _metadata(content: bytes) -> Mapping[str, str]:
    """The metadata in the header of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    header = parse_json(content[8 : 8 + length].decode())
    metadata: Mapping[str, str] = header.get("__metadata__", {})
    return metadata


def _layers(network: Mapping[str, Any]) -> list[dict[str, Any]]:
    layers = network["layers"]
    if not 0 < len(layers) <= MAX_LAYERS:
        raise ValueError(f"a network has {len(layers)} layers")
    return [
        {
            "name": str(layer["name"]),
            "units": int(layer["units"]),
            "read_after": str(layer["read_after"]),
        }
        for layer in layers
    ]


def _check(columns: Mapping[str, Array], layers: Sequence[Mapping[str, Any]], classes: int) -> None:
    """Refuse columns that do not fit together: the page takes them as they are."""
    units = sum(layer["units"] for layer in layers)
    for name in MEASURES.keys() - _OPTIONAL:
        if name not in columns:
            raise ValueError(f"it has no column {name!r}")
    for name, values in columns.items():
        if values.ndim < 1 or len(values) != units:
            raise ValueError(f"the column {name!r} is of {values.shape} for {units} units")
        if name.endswith("/boxes") and values.shape[1:] != (*_slots(columns, name), 4):
            raise ValueError(f"the column {name!r} is of {values.shape}")
        if "/" in name and values.shape[1:2] != _slots(columns, name):
            raise ValueError(f"the column {name!r} is of {values.shape}")
        if name == "class" or name.endswith(("/labels", "/targets")):
            _check_range(name, values, -1, classes)
    _check_range("layer", columns["layer"], 0, len(layers))


def _slots(columns: Mapping[str, Array], name: str) -> tuple[int, ...]:
    """The number of images of a unit of the set of a column."""
    return columns[f"{name.partition('/')[0]}/images"].shape[1:2]


def _check_range(name: str, values: Array, lowest: int, end: int) -> None:
    if len(values) and not (lowest <= values.min() and values.max() < end):
        raise ValueError(f"the column {name!r} has values outside of {lowest}-{end - 1}")


def _blocks(
    network: int, columns: Mapping[str, Array], wanted: Mapping[str, str], most: int
) -> Iterator[Block]:
    for name, dtype in wanted.items():
        if name in columns:
            values = columns[name][:most].astype(dtype)
            yield Block(network, name, dtype[1:], _base64(values))


def _read_images(file: Path) -> dict[str, tuple[Array, Sprites]]:
    """The indices and the pictures of each set of images."""
    tensors = load(read_regular(file, MAX_FILE_BYTES))
    sets = {}
    for kind in SETS:
        if f"{kind}/pixels" not in tensors:
            continue
        indices, pixels = tensors[f"{kind}/indices"], tensors[f"{kind}/pixels"]
        if pixels.ndim != 4 or pixels.dtype != np.uint8 or indices.shape != pixels.shape[:1]:
            raise ValueError(f"the images of {kind} are {pixels.dtype} of {pixels.shape}")
        if pixels.size:
            sets[kind] = indices, make_sprites(pixels)
    return sets


def _base64(values: Array) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _json(value: Any) -> str:
    """JSON that cannot end the element that holds it."""
    text = json.dumps(value)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
