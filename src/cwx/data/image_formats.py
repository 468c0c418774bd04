"""The formats of image files that are read, and the recognition of others by their first bytes."""

from cwx.data.stored_images import ImageFile, open_image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats that are read; PPM stands for PBM, PGM, PPM and PFM.

Pillow tries the readers of all its formats on a file, whatever its suffix. Some of them start
other programs (EPS) or crash on damaged files: every image is opened with these formats alone.
"""

SUFFIXES = frozenset(
    {
        *(".apng", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"),
        *(".pbm", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
    }
)
"""Suffixes of these formats, in lower case: such a file is an image, or it is damaged."""

_RAW = frozenset(
    {
        *(".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos"),
        *(".nef", ".nrw", ".orf", ".pef", ".raw", ".rw2", ".rwl", ".sr2", ".srw"),
    }
)

_PREFIX_BYTES = 512

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}

_OTHER_SIGNATURES = (
    (0, b"%!PS", "EPS (PostScript)"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS (PostScript)"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "PSD (Photoshop)"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"BLP", "BLP"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"PK\3\4", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, without the image itself"),
    (4, b"\x11\xaf", "FLI"),
    (4, b"\x12\xaf", "FLC"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftyphe", "HEIC"),
    (4, b"ftypmif1", "HEIC or AVIF"),
    (4, b"ftyp", "a video or an image of the MP4 family"),
)

_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)


def image_format(file: ImageFile) -> str | None:
    """The format of `FORMATS` that a file has by its content; ``None`` for any other file.

    Raw files of cameras count as others: they begin as TIFF files, with a small preview.

    Raises:
        OSError: `file` is not a regular file, or cannot be read.
    """
    return None if file.suffix.lower() in _RAW else _format(_prefix(file))


def describe_content(file: ImageFile) -> str:
    """What a file that is not of `FORMATS` is instead, as far as its first bytes tell.

    Raises:
        OSError: as `image_format`.
    """
    prefix = _prefix(file)
    if not prefix:
        return "empty"
    for start, signature, name in _OTHER_SIGNATURES:
        if prefix[start:].startswith(signature):
            return name
    text = prefix.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if text.startswith((b"<svg", b"<?xml")):
        return "SVG or other XML"
    return "damaged or of another format"


def _prefix(file: ImageFile) -> bytes:
    with open_image(file) as stream:
        return stream.read(_PREFIX_BYTES)


def _format(prefix: bytes) -> str | None:
    for signature, name in _SIGNATURES.items():
        if prefix.startswith(signature):
            return name
    if prefix[:4] == b"RIFF" and prefix[8:12] == b"WEBP":
        return "WEBP"
    # Text may begin with BM or P1: check more than these two letters.
    if prefix[:2] == b"BM" and int.from_bytes(prefix[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    is_netpbm = prefix[:1] == b"P" and prefix[1:2] in b"123456f" and prefix[2:3].isspace()
    return "PPM" if is_netpbm and _is_number(prefix[3:]) else None


def _is_number(text: bytes) -> bool:
    """Whether a header of PPM goes on with the width, or with a comment."""
    return text.lstrip()[:1].isdigit() or text.lstrip()[:1] == b"#"
