"""Clients for Node before a live server, in a folder of their own; OpenAI's in a web page, too."""

from __future__ import annotations

import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from griffin.server.http.hosts import Hosts
from tests.server.contract.test_pages import here, snippets
from tests.support.browser import chromium
from tests.support.live_server import CHAT, serving

pytestmark = pytest.mark.slow

SUPPORT = Path(__file__).parents[2] / "support"
CONTRACT = SUPPORT / "node_contract.mjs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's packages, and two more; skipped where they cannot be had."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("there is no node, or no npm")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text('{"private": true, "type": "module"}', encoding="utf-8")
    wanted = ["openai", "ai", "@ai-sdk/openai", "zod", "@anthropic-ai/sdk", "ollama"]
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
    assert len(told.splitlines()) == 5
    with capsys.disabled():
        print("\n" + told.strip().replace("\n", ", "))
    assert live.idle()


def test_the_page_runs_as_printed(folder, live):
    code = "\n".join(snippets("node.md", "js"))
    (folder / "page.mjs").write_text(here(code, live), encoding="utf-8")
    told = run(folder, "page.mjs")
    assert "totalTokens" in told and "item_reference" not in told
    assert live.idle()


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder's files, and logs nothing."""

    protocol_version = "HTTP/1.1"  # the client is 150 modules; so they need no connection each

    def log_message(self, format: str, *args: object) -> None: ...


def test_the_client_in_a_page_of_another_origin(folder, llm):
    """A browser asks first whether the page may, with the client's dozen of headers."""
    shutil.copy(SUPPORT / "node_in_page.mjs", folder)
    (folder / "page.html").write_text('<script type="module" src="node_in_page.mjs"></script>')
    files = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=files.serve_forever, daemon=True).start()
    allowed, other = (f"http://{name}:{files.server_port}" for name in ("localhost", "127.0.0.1"))
    asked = CHAT | {"messages": [{"role": "user", "content": "one"}], "max_tokens": 6}
    try:
        with serving(llm, hosts=Hosts(origins=[allowed])) as live, chromium() as browser:

            def told(origin):
                page = browser.new_page()
                page.goto(f"{origin}/page.html#{live.url}", wait_until="commit")
                page.wait_for_function("window.told", timeout=300_000)
                return page.evaluate("window.told")

            with live.http() as http:
                answer = http.post("/v1/chat/completions", json=asked).json()
            text = answer["choices"][0]["message"]["content"]
            wanted = {"whole": text, "streamed": text, "refused": 404, "state": "none; cached=0"}
            assert told(allowed) == wanted
            assert told(other) == {"error": "APIConnectionError"}
            assert live.idle()
    finally:
        files.shutdown()
