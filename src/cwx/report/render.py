"""Self-contained pages: one file each, with a policy that forbids to load anything."""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cwx.report.tables import short
from cwx.storage.quantities import duration, size


def render(
    template: str,
    *,
    style: str = "style.css",
    script: str = "page.js",
    body_script: str | None = None,
    **content: Any,
) -> str:
    """A page from a template of this package.

    All text is escaped. The page's content security policy allows only the package's own scripts,
    by their hashes.

    Args:
        template: its file name.
        style, script: file names of the page's style sheet and script, in this package.
        body_script: file name of a second script that the template has.
        content: the template's values.
    """
    scripts = [_resource(name) for name in (script, body_script) if name]
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src {' '.join(map(_source, scripts))}; base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template(template)
    if body_script:
        content["body_script"] = Markup(scripts[1])
    return displayable(
        page.render(
            policy=policy, style=Markup(_resource(style)), script=Markup(scripts[0]), **content
        )
    )


def _source(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def displayable(text: str) -> str:
    """A text that UTF-8 and HTML can hold: other characters are replaced by U+FFFD.

    These are control characters, and surrogates, as in file names that are not UTF-8.
    """
    return _NO_HTML.sub("\N{REPLACEMENT CHARACTER}", text)


def link(path: str) -> str:
    """A relative path as a URL; folder names may contain any bytes."""
    # Without ./, a colon in the first part would start a scheme such as javascript.
    return "./" + quote(path.encode("utf-8", "surrogateescape"))


def format_time(started: Any) -> str:
    """An ISO time to the minute; runs store UTC."""
    return str(started or "")[:16].replace("T", " ")


_NO_HTML = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cwx.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "short": short, "duration": duration, "time": format_time, "size": size, "link": link,
    }  # fmt: skip
    return environment


@cache
def _resource(name: str) -> str:
    return files("cwx.report").joinpath(name).read_text()
