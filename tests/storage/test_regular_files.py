import os
import socket
from pathlib import Path

import pytest

from cwx.storage.regular_files import check_regular, open_regular, read_regular, read_regular_text


def pipe(path):
    os.mkfifo(path)
    return path


def bind_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    return path


def link(path, target):
    path.symlink_to(target)
    return path


NOT_FILES = {
    "a folder": lambda root: root,
    "a named pipe": lambda root: pipe(root / "pipe.png"),
    "a link to a named pipe": lambda root: link(root / "link.png", pipe(root / "pipe")),
    "a socket": lambda root: bind_socket(root / "s"),
    "a device": lambda _: Path(os.devnull),
    "an endless device": lambda root: link(root / "zero.png", "/dev/zero"),
}


@pytest.fixture
def short_path(tmp_path, monkeypatch):
    # The path of a socket has at most 107 bytes.
    monkeypatch.chdir(tmp_path)
    return Path()


@pytest.mark.parametrize("read", [check_regular, open_regular, lambda path: read_regular(path, 9)])
@pytest.mark.parametrize("kind", NOT_FILES)
def test_what_is_no_regular_file_is_refused_at_once(short_path, kind, read):
    path = NOT_FILES[kind](short_path)
    with pytest.raises(OSError, match="not a regular file") as error:
        read(path)
    assert error.value.filename == str(path)
    assert kind.split()[-1] in error.value.strerror


@pytest.mark.parametrize("name", ["nowhere", "a\0b", "x" * 300, "\ud800", "loop"])
def test_a_path_without_a_file_is_an_os_error(tmp_path, name):
    link(tmp_path / "loop", tmp_path / "loop")
    with pytest.raises(OSError):  # noqa: PT011
        open_regular(tmp_path / name)


def test_a_file_and_a_link_to_it_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfa\r\nb\rc")
    path = link(tmp_path / "link", tmp_path / "file")
    with open_regular(path) as file:
        assert file.read(3) == b"\xef\xbb\xbf"
    assert check_regular(path).st_size == 9
    assert read_regular(path, 9).endswith(b"a\r\nb\rc")
    assert read_regular_text(path, 9, encoding="utf-8-sig") == "a\nb\nc"


def test_a_larger_file_than_the_limit_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_regular(tmp_path / "file", 4)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_a_file_that_states_no_size_is_limited_as_well():
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_regular(Path("/proc/self/maps"), 4)
