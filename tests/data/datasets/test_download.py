import hashlib
import os
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from cwx.data.datasets.download import Archive, fetch

# Nothing listens on the discard port: connections are refused at once.
NOWHERE = "http://127.0.0.1:9"


def write_zip(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def published(tmp_path):
    """A local web server with set.zip: its address and the checksum of the file."""
    md5 = write_zip(tmp_path / "site/set.zip", {"set/a/1": "one", "set/b": "b", "../../evil": "e"})

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = partial(Quiet, directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_port}", md5
        server.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def test_an_archive_that_is_a_named_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "set.zip")
    archive = Archive(f"{NOWHERE}/set.zip", "0" * 32, "set/a")
    with pytest.raises(ValueError, match="a named pipe, not a regular file"):
        fetch(archive, tmp_path / "here", tmp_path)


def everything(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_part_is_downloaded_once_and_nothing_else_is_left(published, tmp_path):
    site, md5 = published
    archive = Archive(f"{site}/set.zip", md5, "set/a")
    destination, archives = tmp_path / "data/deep/here", tmp_path / "data"
    fetch(archive, destination, archives)
    assert (destination / "1").read_text() == "one"
    files = {name for name in everything(archives) if not name.endswith(".lock")}
    # No other part of the archive, and no file outside the folder.
    assert files == {"deep/here/1", "set.zip"}
    assert not list(tmp_path.rglob("*evil*"))
    (archives / "set.zip").unlink()
    fetch(Archive(f"{NOWHERE}/set.zip", md5, "set/a"), destination, archives)


def test_an_archive_placed_by_hand_is_unpacked_without_a_connection(tmp_path):
    md5 = write_zip(tmp_path / "set.zip", {"list.csv": "a;b"})
    fetch(Archive(f"{NOWHERE}/set.zip", md5, "list.csv"), tmp_path / "list.csv", tmp_path)
    assert (tmp_path / "list.csv").read_text() == "a;b"


def test_what_a_killed_process_had_unpacked_is_removed(tmp_path):
    md5 = write_zip(tmp_path / "set.zip", {"set/a": "one"})
    half = tmp_path / f".unpacking-{md5}-x1"
    other = tmp_path / f".unpacking-{'0' * 32}-x2"
    for folder in (half, other):
        (folder / "set").mkdir(parents=True)
        (folder / "set/a").write_text("o")
    fetch(Archive(f"{NOWHERE}/set.zip", md5, "set/a"), tmp_path / "a", tmp_path)
    assert not half.exists()
    # Another process may be unpacking this archive now.
    assert (other / "set/a").exists()


def test_an_empty_folder_counts_as_missing(tmp_path):
    md5 = write_zip(tmp_path / "set.zip", {"set/a": "one"})
    (tmp_path / "place").mkdir()
    fetch(Archive(f"{NOWHERE}/set.zip", md5, "set"), tmp_path / "place", tmp_path)
    assert everything(tmp_path / "place") == {"a"}


def test_without_a_connection_the_error_lists_the_manual_steps(tmp_path):
    archive = Archive(f"{NOWHERE}/set.zip", "0" * 32, "set/a")
    with pytest.raises(ValueError, match="could not be fetched") as caught:
        fetch(archive, tmp_path / "here", tmp_path / "archives")
    for text in (
        f"there is no {tmp_path / 'here'}",
        "Connection refused",
        f"fetch {NOWHERE}/set.zip; unpack it and place its set/a as {tmp_path / 'here'}",
        f"place the file (MD5 {'0' * 32}) as {tmp_path / 'archives/set.zip'}",
    ):
        assert text in str(caught.value)


def test_a_file_with_another_checksum_is_not_unwrite_zip(published, tmp_path):
    site, _ = published
    with pytest.raises(ValueError, match="File not found or corrupted"):
        fetch(Archive(f"{site}/set.zip", "0" * 32, "set"), tmp_path / "here", tmp_path / "archives")
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("content", ["no zip", "a zip without the part"])
def test_a_failed_unpacking_leaves_nothing(tmp_path, content):
    file = tmp_path / "set.zip"
    if content == "no zip":
        file.write_bytes(b"no zip")
    else:
        write_zip(file, {"other": ""})
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match="could not be fetched"):
        fetch(Archive(f"{NOWHERE}/set.zip", md5, "set"), tmp_path / "here", tmp_path)
    assert {path.name for path in tmp_path.iterdir() if not path.name.endswith("lock")} == {
        "set.zip"
    }
