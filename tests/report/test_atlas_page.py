"""The page of the atlas of neurons, in a browser and as text."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from support.atlas_files import write_atlas_files
from support.browser import NEEDED, load, run_script
from support.html_pages import check, read
from support.run_folders import make_run

from cwx.report.atlas_page import PAGE
from cwx.report.run_page import write_page
from cwx.report.sprites import ACROSS, make_sprites
from cwx.storage.run_files import ATLAS, ATLAS_IMAGES

HOSTILE = '</script><img src=x onerror="document.title=1">'
CLASSES = ("cat", "dog", HOSTILE)
LAYERS = [(f"blocks.{number}", 500) for number in range(10)]


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A page of 5,000 units, and the columns."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "large")
    columns = write_atlas_files(folder, classes=CLASSES, layers=LAYERS)
    write_page(folder)
    return folder / PAGE, columns


def test_the_page_is_well_formed_and_the_run_links_to_it(tmp_path):
    folder = make_run(tmp_path / "run")
    write_atlas_files(folder, classes=CLASSES)
    page = read(write_page(folder).read_text())
    assert "atlas of neurons" in [link.text for link in page.all("a")]
    atlas = read((folder / PAGE).read_text())
    check(atlas)
    about = next(it for it in atlas.all("script") if it.attributes.get("id") == "about")
    assert json.loads(about.text)["classes"] == list(CLASSES)


@NEEDED
def test_the_policy_blocks_nothing_and_names_of_classes_stay_text(large, profile):
    dom, errors = load(large[0], profile)
    assert errors == []
    assert "data-rows" in dom
    assert "<title>1</title>" not in dom
    assert "&lt;/script&gt;&lt;img" in dom


START = """
    const rows = () => [...document.querySelectorAll("#atlas tbody tr[data-index]")];
    const id = (name) => document.getElementById(name);
    const head = (name) => document.querySelector(`#atlas th[data-id="${name}"]`);
    const unit = (n) => rows()[n].querySelector("button").getAttribute("aria-label");
    const type = (element, value) => {
        element.value = value;
        element.dispatchEvent(new Event("input", { bubbles: true }));
    };
    const result = {};
"""

TABLE = """
    result.few = rows().length;
    result.count = id("atlas").getAttribute("aria-rowcount");
    result.first = [head("lc-0").getAttribute("aria-sort"), unit(0)];
    head("lc-1").querySelector("button").click();
    result.second = [head("lc-1").getAttribute("aria-sort"), unit(0)];
    head("lc-1").querySelector("button").click();
    result.lowest = [head("lc-1").getAttribute("aria-sort"), unit(0)];
    id("scroll").scrollTop = 1e9;
    dispatchEvent(new Event("resize"));
    return result;
"""


def name_of(row):
    return f"Unit {row % 500} of blocks.{row // 500}"


@NEEDED
def test_a_table_of_5000_units_has_few_rows_and_sorts(large, profile):
    page, columns = large
    result = run_script(page, START + TABLE, profile)
    before, after = (columns[f"{name}/lc"].nan_to_num(0) for name in ("expert", "fine-tuned"))
    assert result["few"] < 100
    assert result["count"] == "5001"
    assert result["first"] == ["descending", name_of(int(before.argmax()))]
    assert result["second"] == ["descending", name_of(int(after.argmax()))]
    # The unit that does not fire has no LC and comes last.
    lowest = int(columns["fine-tuned/lc"].nan_to_num(2).argmin())
    assert result["lowest"] == ["ascending", name_of(lowest)]


FILTERS = """
    type(id("search"), "dog");
    result.search = id("matches").textContent;
    type(id("layer"), "blocks.3");
    result.layer = id("matches").textContent;
    type(document.querySelector('[data-range="cs1"][data-end="from"]'), "0.5");
    result.range = id("matches").textContent;
    type(id("ranged"), "2");
    result.change = id("matches").textContent;
    type(id("search"), "no such class");
    result.none = [id("matches").textContent, rows().length];
    id("second").value = "-1";
    id("second").dispatchEvent(new Event("change", { bubbles: true }));
    result.alone = [...document.querySelectorAll("#atlas thead th")].map((it) => it.dataset.id);
    return result;
"""


@NEEDED
def test_units_are_found_by_class_layer_and_range(large, profile):
    page, columns = large
    result = run_script(page, START + FILTERS, profile)
    dogs = (columns["expert/class"] == 1) | (columns["fine-tuned/class"] == 1)
    in_layer = dogs & (columns["expert/layer"] == 3)
    change = columns["fine-tuned/cs1"] - columns["expert/cs1"]
    masks = [dogs, in_layer, in_layer & (columns["expert/cs1"] >= 0.5), in_layer & (change >= 0.5)]
    expected = [f"{int(mask.sum())} of 5000 units" for mask in masks]
    assert [result[key] for key in ("search", "layer", "range", "change")] == expected
    assert result["none"] == ["0 of 5000 units", 0]
    assert result["alone"] == [
        *("layer", "unit", "class-0", "lc-0", "cs1-0", "cs2-0", "fires-0", "detection-0")
    ]


OPEN = """
    rows()[0].querySelector("button").click();
    const list = id("unit").querySelectorAll(".atlas-images");
    const labels = (it) => [...it.querySelectorAll("canvas")].map((c) => c.ariaLabel);
    result.title = id("unit-title").textContent;
    result.open = id("unit").open;
    result.lists = list.length;
    result.real = labels(list[0]);
    result.attacked = labels(list[3]);
    const press = (key) => id("unit").dispatchEvent(new KeyboardEvent("keydown", { key }));
    press("ArrowRight");
    result.next = id("unit-title").textContent;
    id("unit").close();
    return result;
"""


@NEEDED
def test_a_unit_opens_with_its_images_before_and_after(large, profile):
    page, columns = large
    result = run_script(page, START + OPEN, profile, event="load")
    order = columns["expert/lc"].nan_to_num(-1).argsort(descending=True)
    row = int(order[0])
    assert result["title"] == f"{name_of(row)} (1 of 5000)"
    assert result["next"] == f"{name_of(int(order[1]))} (2 of 5000)"
    assert result["open"]
    assert result["lists"] == 4

    def expected(network, kind):
        names = []
        for slot in range(2):
            index, label = (
                int(columns[f"{network}/{kind}/{c}"][row, slot]) for c in ("images", "labels")
            )
            value = float(columns[f"{network}/{kind}/activations"][row, slot])
            name = CLASSES[label]
            if kind == "adversarial":
                name += f" → {CLASSES[int(columns[f'{network}/{kind}/targets'][row, slot])]}"
            names.append(f"{name}, image {index}, activation {value:.2f}")
        return names

    assert result["real"] == expected("expert", "real")
    assert result["attacked"] == expected("fine-tuned", "adversarial")


PICTURES = """
    const opened = new Promise((resolve) => resolve(rows()[0].querySelector("button").click()));
    addEventListener("load", () => {
        const canvas = document.querySelector("#unit canvas");
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        const colours = new Set(Array.from({ length: data.length / 4 }, (_, n) =>
            data.slice(4 * n, 4 * n + 4).join()));
        document.documentElement.dataset.result = JSON.stringify(
            [colours.size > 8, colours.has("255,230,0,255")]);
    });
    return null;
"""


@NEEDED
def test_an_opened_unit_shows_pixels_and_the_frame_of_the_receptive_field(large, profile):
    assert run_script(large[0], START + PICTURES, profile) == [True, True]


def test_one_network_without_adversarial_images_has_no_cs(tmp_path):
    folder = make_run(tmp_path / "run")
    write_atlas_files(folder, classes=CLASSES, networks=["expert"], attacked=False)
    write_page(folder)
    text = (folder / PAGE).read_text()
    check(read(text))
    assert 'data-column="lc"' in text
    assert 'data-column="cs1"' not in text
    assert 'id="second"' not in text
    assert "adversarial-0" not in text


def damaged(tensors):
    return {
        name: values[:-1] if name == "expert/lc" else values for name, values in tensors.items()
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damaged, "the column 'lc' is of (6,) for 7 units"),
        (lambda t: {n: v for n, v in t.items() if n != "expert/fires"}, "no column 'fires'"),
        (lambda t: t | {"expert/class": t["expert/class"] + 9}, "'class' has values outside of"),
    ],
)
def test_a_damaged_atlas_is_reported_on_the_page_of_the_run(tmp_path, change, message):
    folder = make_run(tmp_path / "run")
    write_atlas_files(folder, classes=CLASSES)
    with (folder / ATLAS).open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    save_file(change(load_file(folder / ATLAS)), folder / ATLAS, metadata=header["__metadata__"])
    text = read(write_page(folder).read_text()).text
    assert message in text
    assert not (folder / PAGE).exists()


def test_an_atlas_without_its_images_has_a_page(tmp_path):
    folder = make_run(tmp_path / "run")
    write_atlas_files(folder, classes=CLASSES)
    (folder / ATLAS_IMAGES).unlink()
    write_page(folder)
    check(read((folder / PAGE).read_text()))


@pytest.mark.parametrize(
    ("channels", "size"), [(1, (8, 8)), (3, (32, 32)), (3, (20, 13)), (4, (5, 5))]
)
def test_every_image_is_once_in_a_sprite(channels, size):
    """Flat images, which JPEG keeps to within a few levels."""
    levels = np.arange(20, dtype=np.uint8) * 12
    images = np.broadcast_to(levels[:, None, None, None], (20, channels, *size)).copy()
    sprites = make_sprites(images)
    assert len(sprites.uris) == 2
    for index, level in enumerate(levels):
        content = base64.b64decode(sprites.uris[index // ACROSS**2].partition(",")[2])
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L")).astype(int)
        tile = index % ACROSS**2
        top, left = tile // ACROSS * sprites.pitch[0], tile % ACROSS * sprites.pitch[1]
        shown = pixels[top : top + size[0], left : left + size[1]]
        assert abs(shown - int(level)).max() <= 3
