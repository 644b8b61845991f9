"""The site: every page is in it, its docstrings keep their columns, and it asks no other host."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.support.pages import ROOT

NAV = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]


def test_every_page_has_its_place() -> None:
    listed = re.findall(r": (\S+\.md)$", NAV, re.M)
    assert len(listed) == len(set(listed))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert written <= set(listed), sorted(written - set(listed))


@pytest.mark.slow
def test_it_builds_without_a_warning_and_asks_nobody() -> None:
    done = subprocess.run(["make", "docs"], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    site = ROOT / "build/site"
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40 and (site / "search/search_index.json").stat().st_size > 100_000
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|link|iframe)[^>]*(?:src|href)="(https?:[^"]*)"', text)
        assert not loaded, (page.name, loaded)
    reference = (site / "reference/griffin.html").read_text(encoding="utf-8")
    assert 'id="griffin.LLM.generate"' in reference and "what was generated, without" in reference
