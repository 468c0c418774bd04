"""Image files that Pillow reads and does not write: deep colours and odd tags."""

import struct
import zlib

import numpy as np

_PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}


def write_png(file, samples, *, bits=16, transparent=None, exif=None):
    """Write a PNG of 1 (grey), 2 (grey, alpha), 3 or 4 channels.

    Args:
        samples: integers ``[height, width, channels]``.
        bits: of a sample; below 8, for grey alone.
        transparent: the transparent grey or colour.
        exif: the content of the chunk eXIf.
    """
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, bits, _PNG_COLOURS[channels], 0, 0, 0)
    rows = b"".join(b"\0" + _packed(row, bits) for row in samples.reshape(height, -1))
    chunks = [(b"IHDR", header)]
    if transparent is not None:
        chunks.append((b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)))
    if exif is not None:
        chunks.append((b"eXIf", exif))
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks))


def _packed(row, bits):
    if bits >= 8:
        return row.astype(">u2" if bits == 16 else "u1").tobytes()
    binary = "".join(f"{value:0{bits}b}" for value in row)
    return int(binary, 2).to_bytes(len(binary) // 8, "big")


def _chunk(name, content):
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def write_tiff(file, samples, *, bits=16, order="<", photometric=None, alpha=None, kind=1):
    """Write an uncompressed TIFF of 1 to 4 channels.

    Args:
        samples: numbers ``[height, width, channels]`` of NumPy's type for `bits` and `kind`;
            12 bits from integers.
        order: ``<`` or ``>``.
        photometric: 0 if 0 is white, 1 if 0 is black, 2 for colours; ``None`` for the usual.
        alpha: the tag ExtraSamples: 1 for premultiplied, 2 for straight alpha.
        kind: the tag SampleFormat: 1 for integers, 2 with a sign, 3 for floats.
    """
    height, width, channels = samples.shape
    if bits == 12:
        data = np.frombuffer(_packed_12(samples), np.uint8).tobytes()
    else:
        data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    if photometric is None:
        photometric = 2 if channels >= 3 else 1
    count = 11 if alpha is None else 12
    bits_at = 8 + 2 + count * 12 + 4
    data_at = bits_at + 2 * channels
    short, long = 3, 4
    bits_value = bits if channels == 1 else bits_at
    tags = [
        (256, long, 1, width),
        (257, long, 1, height),
        (258, short, channels, bits_value),
        (259, short, 1, 1),
        (262, short, 1, photometric),
        (273, long, 1, data_at),
        (277, short, 1, channels),
        (278, long, 1, height),
        (279, long, 1, len(data)),
        (284, short, 1, 1),
        *([] if alpha is None else [(338, short, 1, alpha)]),
        (339, short, 1, kind),
    ]
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, type_, n)
        + (
            struct.pack(f"{order}HH", value, 0)
            if type_ == short and n == 1
            else struct.pack(f"{order}I", value)
        )
        for tag, type_, n, value in tags
    )
    file.write_bytes(
        (b"II" if order == "<" else b"MM")
        + struct.pack(f"{order}HI", 42, 8)
        + struct.pack(f"{order}H", len(tags))
        + entries
        + struct.pack(f"{order}I", 0)
        + struct.pack(f"{order}{channels}H", *[bits] * channels)
        + data
    )


def _packed_12(samples):
    binary = "".join(f"{int(value):012b}" for value in samples.reshape(-1))
    return int(binary, 2).to_bytes(len(binary) // 8, "big")
