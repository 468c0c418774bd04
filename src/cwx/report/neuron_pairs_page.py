"""The page on which volunteers compare pairs of neurons (Dong et al., Figure 11)."""

from functools import partial

from cwx.report.figure_files import Embedded, embed
from cwx.report.render import render
from cwx.report.run import RunContents
from cwx.storage.atomic import write_text
from cwx.storage.neuron_pairs import NEURONS, PAIRS, PairStudy, picture_name, read_pair_study

PAGE = "neuron_pairs.html"
# What the page takes in: bytes of all pictures, those of one at least, and decoded pixels.
MAX_BYTES, MIN_BYTES, MAX_PIXELS = 160 * 2**20, 2**15, 400_000_000


def write_pairs_page(run: RunContents) -> None:
    """Write ``neuron_pairs.html`` for a run, if it has pairs of neurons.

    The page has pictures, pairs and the digest of both alone: no LC, no class and no layer, so
    that volunteers cannot find them. If there are many pictures, large ones are embedded as JPEG.
    A run with a damaged table or picture gets no page; the run's page says why.
    """
    if run.read(PAIRS, lambda _: True) is None or run.read(NEURONS, lambda _: True) is None:
        return
    study = run.attempt(PAIRS, lambda: read_pair_study(run.folder))
    if study is None:
        return
    pictures = _pictures(run, study)
    sizes = {picture.size for picture in pictures.values()}
    if len(pictures) < len(study.statistics) or len(sizes) != 1:
        run.read_errors.append(f"{PAGE} was not written: pictures of neurons are missing")
        return
    ((width, height),) = sizes
    data = {
        "digest": study.digest,
        "pairs": [[pair.number, pair.left, pair.right] for pair in study.pairs.values()],
        "width": width,
        "height": height,
    }
    text = render(
        "neuron_pairs.html.j2",
        style="neuron_pairs.css",
        script="neuron_pairs.js",
        data=data,
        pictures=[(number, picture.uri) for number, picture in pictures.items()],
    )
    write_text(run.folder / PAGE, text)


def _pictures(run: RunContents, study: PairStudy) -> dict[int, Embedded]:
    """The pictures of the neurons that can be read, by number."""
    max_bytes = max(MIN_BYTES, MAX_BYTES // len(study.statistics))
    pixels_left = MAX_PIXELS
    pictures: dict[int, Embedded] = {}
    for number in study.statistics:
        reader = partial(embed, max_bytes=max_bytes, max_pixels=pixels_left)
        picture = run.read(picture_name(number), reader)
        if picture is not None and picture.content:
            pictures[number] = picture
            pixels_left -= picture.decoded
    return pictures
