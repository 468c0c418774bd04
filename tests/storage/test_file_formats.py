"""Reading JSON, YAML and CSV that are damaged, hostile or huge."""

import json
import math
import time
import tracemalloc

import pytest
import yaml

from cwx.storage.csv_files import read_csv
from cwx.storage.json_files import parse_json, read_json, read_object
from cwx.storage.yaml_files import MAX_BYTES, read_plain_yaml, read_yaml


def bomb(levels):
    """A YAML text of nested aliases: each level holds the one before nine times."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


HOSTILE_YAML = {
    "aliases": bomb(9),
    "an anchor": "a: &x 1",
    "an alias to itself": "&a [*a]",
    "a merge": "a: &a {b: 1}\nc:\n  <<: *a",
    "a merge of a mapping": "a: {<<: {b: 1}}",
    "a tag": "!!python/object/apply:os.system [ls]",
    "a plain tag": "a: !!binary aaaa",
    "nested brackets": "[" * 100_000,
    "nested lists": "- " * 100_000,
    "nested keys": "\n".join(" " * depth + "a:" for depth in range(60)),
    "a key twice": "a: 1\na: 2",
    "a list as a key": "? [a]\n: 1",
    "two documents": "a\n---\nb",
    "a null byte": "a: \0",
    "a bracket": "{",
    "many values": "[" + "1," * 30_000 + "1]",
}


@pytest.mark.parametrize("kind", HOSTILE_YAML)
def test_yaml_that_is_not_plain_is_refused_at_once(tmp_path, kind):
    file = tmp_path / "x.yaml"
    file.write_text(HOSTILE_YAML[kind])
    start = time.monotonic()
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"\w"):
        read_yaml(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("kind", ["aliases", "a tag", "nested brackets", "many values"])
def test_any_other_loader_is_protected_as_well(tmp_path, kind):
    (tmp_path / "x.yaml").write_text(HOSTILE_YAML[kind])
    with pytest.raises(ValueError, match="anchor|tag|nest|values"):
        read_plain_yaml(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 2001-13-45", {"a": "2001-13-45"}),
        ("a: 2001-01-01", {"a": "2001-01-01"}),
        ("a: " + "9" * 5000, {"a": "9" * 5000}),
        ("a: 0x" + "f" * 5000, {"a": "0x" + "f" * 5000}),
        ("a: 1:" + "59:" * 100 + "1", {"a": "1:" + "59:" * 100 + "1"}),
        ("", None),
        ("[1, 2.5, true, null, 'x']", [1, 2.5, True, None, "x"]),
        ("'${x}': {1: .inf}", {"${x}": {1: math.inf}}),
    ],
)
def test_plain_yaml_is_read(tmp_path, text, value):
    (tmp_path / "x.yaml").write_text(text)
    assert read_yaml(tmp_path / "x.yaml") == value


def test_the_yaml_that_hydra_writes_is_read_as_by_the_safe_loader(tmp_path):
    content = {
        "seed": 0,
        "x": [1, 2.5, None, True, "yes", "1e-3"],
        "n": {"lr": 1e-5, "s": "${a.b}"},
    }
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(content))
    assert read_yaml(tmp_path / "x.yaml") == content


def test_a_larger_yaml_file_than_the_limit_is_not_read(tmp_path):
    (tmp_path / "x.yaml").write_text("a" * (MAX_BYTES + 1))
    with pytest.raises(OSError, match="larger than"):
        read_yaml(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "[" * 101 + "]" * 101, '{"a":1,"a":2}', "", "{", "\ufeff1"],
)
def test_json_that_is_damaged_or_deep_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"\w"):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1" * 400, math.inf),
        ("1" * 5000, math.inf),
        ("-" + "1" * 100, -float("1" * 100)),
        ("18446744073709551615", 2**64 - 1),
        (r'{"\ud800": ["a\udfffb"]}', {"\ufffd": ["a\ufffdb"]}),
        (r'"\ud83d\ude00"', "\U0001f600"),
        ("[1, 2.5, null, true]", [1, 2.5, None, True]),
    ],
)
def test_json_values_can_be_computed_with_and_written(text, value):
    assert parse_json(text) == value
    json.dumps(parse_json(text)).encode()
    str(parse_json(text)).encode()


@pytest.mark.parametrize("text", ["5", "null", "[1, 2]", '"x"', "true", "[[1, 2]]"])
def test_a_file_of_another_type_holds_no_object(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    assert read_json(tmp_path / "x.json") == json.loads(text)
    with pytest.raises(ValueError, match="it holds .*, not an object"):
        read_object(tmp_path / "x.json")


def table(tmp_path, content, *, max_bytes=10_000, max_cells=20):
    (tmp_path / "x.csv").write_bytes(content)
    return read_csv(tmp_path / "x.csv", max_bytes=max_bytes, max_cells=max_cells)


def test_csv_is_read_with_what_was_left_out(tmp_path):
    whole = table(tmp_path, b'a,b\r\n1,"x\r\ny"\r\n\r\n2\r\n3,4,5\r\n')
    assert whole.rows == [{"a": "1", "b": "x\r\ny"}, {"a": "2", "b": ""}, {"a": "3", "b": "4"}]
    assert (whole.columns, whole.left_out) == (["a", "b"], "")
    assert table(tmp_path, b"").rows == []
    assert table(tmp_path, b"a\n").rows == []
    many = table(tmp_path, b"a,b\n" + b"1,2\n" * 50)
    assert len(many.rows) == 10
    assert many.left_out == "The first 10 rows of a file of 204 B."
    large = table(tmp_path, b"a,b\n" + b"1,2\n" * 50, max_bytes=26)
    assert len(large.rows) == 5
    assert large.left_out
    odd = table(tmp_path, b"a\xff,b\0\n\xfe,\0\n")
    assert odd.rows == [{"a\ufffd": "\ufffd", "b\0": "\0"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x" * 20_000, "first line"),
        (b",".join([b"x"] * 100), "100 columns"),
        (b"a,b\n" + b"y" * 200_000, "field larger"),
    ],
)
def test_csv_without_a_header_within_the_limits_is_refused(tmp_path, content, message):
    limit = 10_000 if len(content) < 100_000 else 1_000_000
    with pytest.raises(ValueError, match=message):
        table(tmp_path, content, max_bytes=limit)


def test_a_huge_csv_file_takes_bounded_memory(tmp_path):
    with (tmp_path / "x.csv").open("wb") as file:
        file.write(b"a,b\n")
        file.truncate(2 * 10**9)
    tracemalloc.start()
    assert read_csv(tmp_path / "x.csv", max_bytes=1000, max_cells=20).left_out
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6
