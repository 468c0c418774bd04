"""Loading a page in a real browser, if one is installed."""

import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from html import escape

import pytest
from support.html_pages import read

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
NEEDED = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")


FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
    "--enable-logging=stderr", "--dump-dom",
)  # fmt: skip


def load(page, profile):
    """The page's DOM after its script has run, and the lines on the browser's console."""
    try:
        return _load(page, profile)
    except subprocess.TimeoutExpired:
        # On a busy machine the browser may hang at its start.
        return _load(page, profile)


def _load(page, profile):
    # Pipes would stay open as long as any process of the browser: use files and a process group.
    dom, log = profile / "dom", profile / "log"
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile / 'data'}", page.as_uri()]
    with dom.open("w") as out, log.open("w") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)
        try:
            assert process.wait(timeout=60) == 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return dom.read_text(), [line for line in log.read_text().splitlines() if "CONSOLE" in line]


def run_script(page, script, profile, width=None, event="DOMContentLoaded"):
    """The result of `script` on the page at an event, in a window of `width` CSS pixels."""
    text = page.read_text()
    # The page's policy would forbid the test's script.
    text = re.sub(r"<meta http-equiv[^>]*>", "", text)
    element = (
        f"<script>addEventListener('{event}', () => {{ let result; try {{ result = (() => {{"
        f"{script}}})(); }} catch (error) {{ result = String(error); }}"
        "top.document.documentElement.dataset.result = JSON.stringify(result); });</script>"
    )
    copy = page.with_name("test.html")
    text = text.replace("</head>", f"{element}</head>")
    if width is not None:
        # The browser has no window as narrow as a phone: use a frame.
        frame = f'style="width:{width}px;height:900px;border:0"'
        text = f'<!doctype html><html><iframe {frame} srcdoc="{escape(text)}"></iframe></html>'
    copy.write_text(text)
    dom, _ = load(copy, profile)
    return json.loads(html_element(dom).attributes["data-result"])


def html_element(dom):
    # Chromium leaves out optional end tags: keep the html element only.
    return read(re.sub(r"(?s)^.*?(<html[^>]*>).*$", r"\1</html>", dom)).all("html")[0]
