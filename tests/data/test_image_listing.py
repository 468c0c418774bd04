import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from cwx.data.image_listing import list_images, summarise


def write(path, file_format="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (3, 3), 9).save(path, file_format)
    return path


def names(paths, folder):
    return [str(path.relative_to(folder)) for path in paths]


@pytest.mark.parametrize(
    ("name", "file_format"),
    [
        *(("a.gif", "GIF"), ("a.jfif", "JPEG"), ("a.JPG", "JPEG"), ("a.PnG", "PNG")),
        *(("a.jpe", "JPEG"), ("a.dib", "BMP"), ("a.pnm", "PPM"), ("a.jpg", "PNG")),
        *(("a", "PNG"), ("a.dat", "WEBP"), ("a.txt", "TIFF"), ("a.png.bak", "PNG")),
    ],
)
def test_what_is_an_image_by_its_content_is_read(tmp_path, name, file_format):
    file = write(tmp_path / name, file_format)
    listing = list_images(tmp_path)
    assert listing.images == [file]
    assert not listing.left_out


def test_folders_are_read_with_all_folders_in_them(tmp_path):
    for name in ("b/2.png", "b/c/d/0.png", "1.png", "a/3.png"):
        write(tmp_path / name)
    listing = list_images(tmp_path)
    assert names(listing.images, tmp_path) == ["1.png", "a/3.png", "b/2.png", "b/c/d/0.png"]


def test_links_are_followed_once(tmp_path):
    write(tmp_path / "class/0.png")
    write(tmp_path / "elsewhere/1.png")
    (tmp_path / "class/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "class/self").symlink_to(tmp_path / "class")
    (tmp_path / "elsewhere/up").symlink_to(tmp_path / "class")
    (tmp_path / "class/2.png").symlink_to(tmp_path / "elsewhere/1.png")
    images = list_images(tmp_path / "class").images
    assert names(images, tmp_path / "class") == ["0.png", "2.png", "more/1.png"]


def test_files_of_desktops_are_passed_over_in_silence(tmp_path):
    write(tmp_path / "0.png")
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._0.png", "._x", "ehthumbs.db"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    for name in ("__MACOSX/1.png", ".ipynb_checkpoints/0-checkpoint.png", "@eaDir/0.png"):
        write(tmp_path / name)
    listing = list_images(tmp_path)
    assert names(listing.images, tmp_path) == ["0.png"]
    assert not listing.left_out


def test_other_files_are_left_out_by_name(tmp_path):
    write(tmp_path / "0.png")
    write(tmp_path / ".hidden.png")
    write(tmp_path / ".cache/1.png")
    (tmp_path / "notes.txt").write_text("BM and P5 are no headers")
    (tmp_path / "photo.avif").write_bytes(b"\0\0\0\x20ftypavif" + bytes(40))
    shutil.copy(write(tmp_path / "1.tif", "TIFF"), tmp_path / "raw.NEF")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    listing = list_images(tmp_path)
    assert names(listing.images, tmp_path) == ["0.png", "1.tif"]
    left_out = [".cache/1.png", ".hidden.png", "broken", "notes.txt", "photo.avif", "pipe"]
    assert names(listing.left_out, tmp_path) == [*left_out, "raw.NEF"]


def test_expected_files_are_not_named(tmp_path):
    write(tmp_path / "0.png")
    (tmp_path / "GT-00000.csv").write_text("")
    assert not list_images(tmp_path, ["GT-*.csv"]).left_out


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".gif", ".tiff", ".jfif", ".ppm"])
def test_a_file_that_is_named_an_image_is_left_to_its_reader(tmp_path, suffix):
    (tmp_path / f"empty{suffix}").write_bytes(b"")
    os.mkfifo(tmp_path / f"pipe{suffix}")
    assert names(list_images(tmp_path).images, tmp_path) == [f"empty{suffix}", f"pipe{suffix}"]


def test_a_folder_that_loses_most_of_its_files_is_refused(tmp_path):
    write(tmp_path / "0.png")
    (tmp_path / "1.avif").write_bytes(b"x")
    list_images(tmp_path).check()
    (tmp_path / "2.avif").write_bytes(b"x")
    message = r"only 1 images of the formats .*GIF.* and 2 other files \(2 \.avif: 1\.avif, 2\."
    with pytest.raises(ValueError, match=message):
        list_images(tmp_path).check()
    (tmp_path / "0.png").unlink()
    with pytest.raises(ValueError, match="no image of the formats"):
        list_images(tmp_path).check()


def test_files_that_accompany_an_image_are_no_loss(tmp_path):
    write(tmp_path / "0.png")
    for name in ("0.txt", "0.json", "0.png.xml"):
        (tmp_path / name).write_text("")
    listing = list_images(tmp_path)
    listing.check()
    assert len(listing.left_out) == 3


def test_names_that_are_not_text_are_escaped():
    files = [Path("f") / os.fsdecode(b"\xff.avif"), Path("f/a\x1b[2J.txt")]
    text = summarise(files, Path("f"))
    assert text == r"2 other files (1 .avif, 1 .txt: \udcff.avif, a\x1b[2J.txt)"
    assert text.isprintable()
