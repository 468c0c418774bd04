"""The site of the documents and the API reference builds without a warning."""

import os
import re
import subprocess
import sys

import pytest
from support.paths import ROOT

pytest.importorskip("mkdocs", reason="needs the dependency group docs")

# Attributes by which a page loads a file; links to other sites are not among them.
LOADED = re.compile(r'(?:<script[^>]*\ssrc|<link[^>]*\shref|<img[^>]*\ssrc)="(https?:)?//')


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_a_network(tmp_path):
    """With every folder of the package, the glossary, and formulas that need no script."""
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert build.returncode == 0, build.stderr
    assert "WARNING" not in build.stderr
    pages = {page.relative_to(tmp_path).as_posix(): page for page in tmp_path.rglob("*.html")}
    for folder in ("methods", "evaluations/neurons", "training/importing", "study/steps"):
        assert f"reference/{folder}/index.html" in pages
    assert {"index.html", "glossary.html", "project.html", "methods/cwx.html"} <= pages.keys()
    unroll = next(page for page in pages if page.startswith("reference/functional/distillation"))
    assert 'id="cwx.functional.unroll.Exact"' in pages[unroll].read_text()
    assert "<math" in pages["methods/cwx.html"].read_text()
    for name, page in pages.items():
        text = page.read_text()
        assert not LOADED.search(text), name
        assert "arithmatex" not in text, name
