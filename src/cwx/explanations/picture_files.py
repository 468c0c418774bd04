"""One PNG file per image of an explanation, as displayed."""

import re
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize
from urllib.parse import quote

from PIL import Image

from cwx.explanations.drawing import enlarge, to_pixels, whole_factor
from cwx.explanations.patterns import MethodOutput
from cwx.functional.images import Normalization
from cwx.storage.atomic import atomic

# Pixels: small images are enlarged by a whole factor, up to this side.
_SIDE = 256
# Characters of a class name in a file name.
_NAME_LENGTH = 40


def write_pictures(
    folder: Path,
    method: str,
    output: MethodOutput,
    classes: Sequence[str],
    normalization: Normalization,
) -> None:
    """Write each image of a method as ``<method>/<class index>_<class>_<number>.png``.

    Numbers count the images of a class from 1. Names of methods and classes are escaped, so that
    no file lies outside the folder. Small images are enlarged by a whole factor.

    Args:
        folder: for all methods.
        method: its name.
        output: the explanations of the method.
        classes: the name of each class, by index.
        normalization: of the images.
    """
    displayed = output.for_display(normalization)
    for label in displayed.labels.unique().tolist():
        images = normalization.denormalize(displayed.of_class(label))
        factor = whole_factor(images.shape, _SIDE)
        for number, image in enumerate(images, 1):
            name = f"{label:04d}_{_plain(classes[label])}_{number:03d}.png"
            with atomic(folder / _escaped(method) / name) as file:
                Image.fromarray(enlarge(to_pixels(image), factor)).save(file, "PNG")


def _plain(name: str) -> str:
    """A class name in ASCII letters, digits and hyphens; ``class`` if it has none of them.

    >>> _plain("../Speed limit (20 km/h)"), _plain("é"), _plain("犬")
    ('Speed-limit-20-km-h', 'e', 'class')
    """
    ascii_text = normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.findall("[A-Za-z0-9]+", ascii_text)
    return "-".join(words)[:_NAME_LENGTH].strip("-") or "class"


def _escaped(method: str) -> str:
    """The name of a method as a folder; different names give different folders.

    >>> _escaped("iscp_tv02"), _escaped("../my method")
    ('iscp_tv02', '%2E%2E%2Fmy%20method')
    """
    return quote(method, safe="").replace(".", "%2E")
