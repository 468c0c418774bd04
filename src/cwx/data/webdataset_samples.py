"""The samples of a shard in the layout of WebDataset: adjacent members of one key.

``a/7.jpg`` and ``a/7.cls`` are the fields ``jpg`` and ``cls`` of the sample ``a/7``. A shard is
indexed once; what was found is kept in a file that holds while size and time of the shard do.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from cwx.data.label_text import as_label
from cwx.data.tar_archives import ArchiveMember, members, read_content
from cwx.errors import printable
from cwx.storage.atomic import write_tensors
from cwx.storage.regular_files import check_regular, open_regular

log = logging.getLogger(__name__)

# The key is the path up to the first dot of the file name, as in the package webdataset.
_NAME = re.compile(r"((?:.*/|)[^./][^./]*)\.([^/]+)", re.DOTALL)
# Bytes of the field with the label.
_MAX_LABEL = 2**20


@dataclass(frozen=True)
class Fields:
    """Which members of a sample are read.

    Attributes:
        images: names of the image, such as ``jpg``; of several in a sample, the first of these.
        label: the field with the class, such as ``cls``; or a field and a key of the JSON object in
            it, such as ``json:label``.
    """

    images: Sequence[str]
    label: str


Samples = Sequence[tuple[ArchiveMember, str]]
"""Images, each with its label as text: a number, or the name of its class."""


def read_samples(shard: Path, fields: Fields, cache: Path) -> Samples:
    """The samples of a shard, in their order.

    Args:
        cache: the folder of the index of each shard of earlier calls.

    Raises:
        ValueError: the shard cannot be read (see `members`), a sample has no image or label, or two
            samples have one key.
    """
    key = hashlib.sha256(repr((str(shard.absolute()), fields)).encode())
    file = cache / f"shard-{key.hexdigest()[:20]}.safetensors"
    try:
        status = check_regular(shard)
        stamp = [status.st_size, status.st_mtime_ns]
        if (known := _read_index(file, shard, stamp)) is not None:
            return known
        log.info("%s is new or changed: it is indexed once", printable(shard))
        with open_regular(shard) as stream:
            samples = [
                (_image(shard, name, sample, fields), _label(shard, name, sample, fields, stream))
                for name, sample in _samples(shard, stream)
            ]
    except OSError as error:
        raise ValueError(
            f"{printable(shard)} cannot be read ({error.strerror or type(error).__name__}): "
            "replace it, or change data.source.train and data.source.test"
        ) from error
    _write_index(file, samples, stamp)
    return samples


Sample = Mapping[str, ArchiveMember]


def _samples(shard: Path, stream: IO[bytes]) -> Iterator[tuple[str, Sample]]:
    """The key of each sample, and its members by field."""
    key, fields, keys = "", dict[str, ArchiveMember](), set[str]()
    others: list[str] = []
    for member in members(shard, stream):
        match = _NAME.fullmatch(member.name)
        if match is None:
            others.append(member.name)
            continue
        # Fields have lower case, as in the package webdataset.
        name, field = match[1], match[2].lower()
        if name != key:
            if fields:
                yield key, fields
            if name in keys:
                raise ValueError(
                    f"{printable(shard)} has two samples of the key {printable(name)}, or members "
                    "of this sample apart from each other: pack the members of each sample "
                    "together, with a key of its own"
                )
            keys.add(name)
            key, fields = name, {}
        if field in fields:
            raise ValueError(
                f"{printable(shard)} has the member {printable(member.name)} twice in one sample: "
                "give each field once"
            )
        fields[field] = member
    if fields:
        yield key, fields
    if others:
        line = "%s: %d members are left out, which have no key and field in their names, such as %s"
        log.warning(line, printable(shard), len(others), printable(others[0]))


def _image(shard: Path, key: str, sample: Sample, fields: Fields) -> ArchiveMember:
    for field in fields.images:
        if field in sample:
            return sample[field]
    raise ValueError(
        f"the sample {printable(key)} in {printable(shard)} has no image: of the fields "
        f"{', '.join(fields.images)} (data.source.image) it has none, but {_listed(sample)}"
    )


def _label(shard: Path, key: str, sample: Sample, fields: Fields, stream: IO[bytes]) -> str:
    place = f"the sample {printable(key)} in {printable(shard)}"
    field, _, entry = fields.label.partition(":")
    if (member := sample.get(field)) is None:
        raise ValueError(
            f"{place} has no label: there is no field {field} (data.source.label), but "
            f"{_listed(sample)}"
        )
    if member.size > _MAX_LABEL:
        raise ValueError(f"{place} has a field {field} of {member.size:,} bytes, which is no label")
    content = read_content(stream, member)
    try:
        label = _entry(json.loads(content), entry) if entry else content.decode("utf-8-sig").strip()
        return as_label(label)
    except (ValueError, RecursionError) as error:
        reason = str(error) if type(error) is ValueError else "it is no text, or no JSON"
        raise ValueError(
            f"{place} has no label in {printable(fields.label)} (data.source.label): {reason}"
        ) from error


def _entry(content: Any, key: str) -> Any:
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    if key not in content:
        raise ValueError(f"the JSON object has no key {printable(key)}, but {_listed(content)}")
    return content[key]


def _listed(names: Mapping[str, Any]) -> str:
    listed = ", ".join(printable(name) for name in sorted(map(str, names))[:5])
    return listed + (", …" if len(names) > 5 else "")


def _read_index(file: Path, shard: Path, stamp: Sequence[int]) -> Samples | None:
    """The samples of an earlier call; ``None`` if there are none, or the shard has changed."""
    try:
        check_regular(file)
        tensors = load_file(file)
        names, labels = (bytes(tensors[key].numpy()).split(b"\0") for key in ("names", "labels"))
        places = tensors["places"].tolist()
        if tensors["stamp"].tolist() != list(stamp) or not len(names) == len(labels) == len(places):
            return None
        return [
            (ArchiveMember(shard, name.decode("utf-8", "surrogateescape"), *place), label.decode())
            for name, label, place in zip(names, labels, places, strict=True)
        ]
    except (OSError, KeyError, SafetensorError, ValueError, TypeError):
        return None


def _write_index(file: Path, samples: Samples, stamp: Sequence[int]) -> None:
    if not samples:
        return
    names = [image.name.encode("utf-8", "surrogateescape") for image, _ in samples]
    tensors = {
        "names": _packed(names),
        "labels": _packed([label.encode() for _, label in samples]),
        "places": torch.tensor([[image.offset, image.size] for image, _ in samples]),
        "stamp": torch.tensor(stamp),
    }
    write_tensors(file, tensors, {})


def _packed(texts: Sequence[bytes]) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(bytearray(b"\0".join(texts)), dtype=np.uint8))
