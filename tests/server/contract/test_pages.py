"""What docs/clients shows is run, line by line, against a live server."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.live_server import NAME
from tests.support.pages import run_page

PAGES = Path(__file__).parents[3] / "docs" / "clients"


def snippets(page, language):
    """Return a page's code of one language."""
    found = re.findall(
        rf"^```{language}\n(.*?)^```", (PAGES / page).read_text(encoding="utf-8"), re.M | re.S
    )
    assert found, f"{page} shows no {language}"
    return found


def here(code, live):
    return code.replace("http://127.0.0.1:8000", live.url).replace(
        "google/recurrentgemma-2b-it", NAME
    )


@pytest.mark.sweep
@pytest.mark.parametrize("page", ["openai.md", "langchain.md"])
def test_python(page, live, capsys):
    instead = {"http://127.0.0.1:8000": live.url, "google/recurrentgemma-2b-it": NAME}
    assert run_page(PAGES / page, instead)
    assert live.idle() and len(capsys.readouterr().out) > 100


@pytest.mark.sweep
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("number", range(5))
def test_curl(number, live):
    code = snippets("curl.md", "sh")
    assert len(code) == 5
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", here(code[number], live)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and '{"error"' not in done.stdout, done.stdout + done.stderr
    count = len(re.findall(r"^(?:curl|say \w)", code[number], re.M))
    assert done.stdout.count("{") >= count > 1  # each says something
