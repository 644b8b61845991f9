"""OpenAI's client for Node and the AI SDK before a live server, in a folder of their own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.server.contract.test_pages import here, snippets

pytestmark = pytest.mark.slow

CONTRACT = Path(__file__).parents[2] / "support" / "node_contract.mjs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages that the page names; skipped where they cannot be had."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("there is no node, or no npm")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text('{"private": true, "type": "module"}', encoding="utf-8")
    wanted = ["openai", "ai", "@ai-sdk/openai", "zod"]
    done = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", *wanted],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["npm failed"])[0]
        pytest.skip(f"{', '.join(wanted)} cannot be installed here: {why[:200]}")
    return folder


def run(folder: Path, name: str, *arguments: str) -> str:
    """Run a module of the folder; return what it prints. It must end well."""
    done = subprocess.run(
        ["node", name, *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_clients_are_answered(folder, live, capsys):
    """Chats, responses, conversations; several turns with references to items, and with tools."""
    shutil.copy(CONTRACT, folder)
    told = run(folder, CONTRACT.name, live.url)
    assert len(told.splitlines()) == 3
    with capsys.disabled():
        print("\n" + told.strip().replace("\n", ", "))
    assert live.idle()


def test_the_page_runs_as_printed(folder, live):
    code = "\n".join(snippets("node.md", "js"))
    (folder / "page.mjs").write_text(here(code, live), encoding="utf-8")
    told = run(folder, "page.mjs")
    assert "totalTokens" in told and "item_reference" not in told
    assert live.idle()
