"""Self-contained pages: one file each, with a policy that forbids to load anything."""

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
    """A page from a template of this package.

    All text is escaped. The page's content security policy allows only the package's own script,
    by its hash.
    """
    style, script = _resource("style.css"), _resource("page.js")
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


def link(path: str) -> str:
    """A relative path as a URL; folder names may contain any character."""
    # Without ./, a colon in the first part would start a scheme such as javascript.
    return "./" + quote(path)


def format_time(started: Any) -> str:
    """An ISO time to the minute; runs store UTC."""
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
        "short": short, "duration": duration, "time": format_time, "size": size, "link": link,
    }  # fmt: skip
    return environment


@cache
def _resource(name: str) -> str:
    return files("cwx.report").joinpath(name).read_text()
