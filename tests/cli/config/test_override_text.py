"""Overrides from plain values are read by Hydra as these values."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from cwx.cli.config.override_text import override
from cwx.errors import UserError


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 3, -0.25, 1e-12, "", "null", "1e3", "true", "a b", "a=b", "it's"),
        *(
            "a\\",
            "a\\'b",
            'say "x"',
            "[x",
            "{y: 1}",
            "é日本",
            "a,b",
            "$x",
            "~/x",
            "# c",
            "%s",
            "a: b",
        ),
        *([], ["a,b", "c'"], [1, None, 2.5], ["on", "'"], {"a": [1, "b"]}),
    ],
)
def test_hydra_reads_the_value(value):
    line = override("data.source.root", value)
    (parsed,) = OverridesParser.create().parse_overrides([line])
    assert parsed.key_or_group == "data.source.root"
    assert not parsed.is_sweep_override()
    assert plain(parsed.value()) == value


def plain(value):
    """Quoted strings in containers are texts."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return value.text if hasattr(value, "text") else value


def test_a_text_with_an_interpolation_is_refused():
    with pytest.raises(UserError, match="rename it"):
        override("data.source.classes", ["a", "${oc.env:HOME}"])
