"""Self-contained pages: everything is inside the file, and browsers are told to load nothing."""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cwx.report.tables import short
from cwx.storage.quantities import duration, size


def render(template: str, **content: Any) -> str:
    """A page by a template of this package.

    All text is escaped, and nothing from a run becomes part of the script, which alone may run:
    the page's policy names it by its hash.
    """
    style, script = _beside("style.css"), _beside("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template(template)
        .render(policy=policy, style=Markup(style), script=Markup(script), **content)
    )


def address(path: str) -> str:
    """A relative path as a link: names of folders may hold anything."""
    # A first part with a colon would be taken for a scheme such as javascript.
    return "./" + quote(path)


def when(started: Any) -> str:
    """An ISO time to the minute, in UTC as runs note it."""
    return str(started or "")[:16].replace("T", " ")


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
        "short": short, "duration": duration, "when": when, "size": size, "address": address,
    }  # fmt: skip
    return environment


@cache
def _beside(name: str) -> str:
    return files("cwx.report").joinpath(name).read_text()
