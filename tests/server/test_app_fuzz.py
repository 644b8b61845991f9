"""Whatever is sent to a live server: an answer, never a 500, no hang, nothing left behind."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings

import griffin
from tests.cli.test_serve import start
from tests.server.test_protocol_fuzz import bodies
from tests.support.live_server import serving
from tests.support.request_bodies import PARSERS
from tests.support.toy_folder import write_toy
from tools.fuzz.bodies import make
from tools.fuzz.harness import chance

PATHS = {
    "chat": "POST /v1/chat/completions",
    "completion": "POST /v1/completions",
    "response": "POST /v1/responses",
    "message": "POST /v1/messages",
    "ollama": "POST /api/chat",
    "generate": "POST /api/generate",
    "show": "POST /api/show",
    "embed": "POST /api/embed",
    "embedding": "POST /v1/embeddings",
    "embed_prompt": "POST /api/embeddings",
    "session": "POST /v1/sessions",
    "change": "PATCH /v1/sessions/s",
    "fork": "POST /v1/sessions/s/fork",
    "rewind": "POST /v1/sessions/s/rewind",
    "append": "POST /v1/sessions/s/append",
    "state": "POST /v1/states",
    "tokenize": "POST /tokenize",
    "detokenize": "POST /detokenize",
    "template": "POST /apply-template",
}


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    llm = griffin.load(write_toy(folder / "toy"), device="cpu")
    limits = {"max_tokens": 6, "default_max_tokens": 3, "max_rows": 8}
    with (
        serving(llm, folder / "store", limits=limits, store_bytes=4 << 20) as live,
        live.http() as http,
    ):
        http.post("/v1/sessions", json={"name": "s"})
        http.post("/v1/states", json={"name": "t", "text": "owl"})
        yield live, http


def test_every_body_has_its_path():
    assert PATHS.keys() == PARSERS.keys()


def check(live, http, kind, body):
    send(http, PATHS[kind], body)


def send(http, kind, body):
    method, path = kind.split()
    answer = http.request(method, path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code < 500 or answer.status_code == 507, (kind, body, answer.text)
    if answer.headers["content-type"].startswith("application/json"):
        assert ("error" in answer.json()) == (
            answer.status_code >= 400
        ) or "status" in answer.json()
    else:
        assert answer.text.endswith("\n") and "the server failed on this" not in answer.text


@pytest.mark.thorough
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=bodies())
def test_three_hundred_bodies(live, drawn):
    check(*live, *drawn)


def test_bodies_in_every_dialect(live):
    """A few of what `python -m tools.fuzz bodies` tries."""
    for number in range(60):
        case = make(chance("bodies", 0, number))
        send(live[1], case.route, case.body)


@pytest.mark.slow
def test_ten_thousand_bodies(tmp_path):
    """And memory does not grow: the server is a process of its own, for hypothesis's own memory
    does."""
    folder = write_toy(tmp_path / "toy")
    bounds = ("--max-tokens", 6, "--default-max-tokens", 3, "--max-rows", 8)
    process, url = start(
        folder, tmp_path, "--port", 0, "--store-bytes", "4M", "--cache-bytes", "8M", *bounds
    )
    drain = threading.Thread(target=process.stderr.read, daemon=True)
    drain.start()
    statm, seen = Path(f"/proc/{process.pid}/statm"), []
    try:
        with httpx2.Client(base_url=url, timeout=60) as http:
            http.post("/v1/sessions", json={"name": "s"})
            http.post("/v1/states", json={"name": "t", "text": "owl"})

            @settings(
                max_examples=10_000,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
            )
            @given(drawn=bodies())
            def go(drawn):
                check(None, http, *drawn)
                seen.append(4096 * int(statm.read_text().split()[1]))

            go()
            assert http.get("/v1/server").json()["slots"]["busy"] == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert max(seen[-1000:]) - max(seen[2000:3000]) < 16 << 20
