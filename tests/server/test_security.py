"""Who is kept out, and what is bounded: a test for each guard, which fails without it."""

from __future__ import annotations

import ast
import http.client
import logging
import threading
from pathlib import Path

import pytest

import griffin
from griffin.server.endpoints import OPERATIONS
from griffin.server.http.keys import Keys
from griffin.server.limits import Limits
from griffin.server.protocol import body as parsing
from griffin.server.settings import Settings
from griffin.server.shelves import shelf
from tests.support.live_server import ALICE, BOB, CHAT, as_, guarded, serving


@pytest.fixture(scope="module")
def live(llm, tmp_path_factory):
    with guarded(llm, tmp_path_factory.mktemp("guard") / "store") as live:
        yield live


# Who may come in.


def test_every_path_but_two_needs_a_key(live):
    with live.http() as http:
        for operation in OPERATIONS:
            answer = http.request(
                operation.method, _path(operation), json={} if operation.body else None
            )
            assert (
                (answer.status_code == 200) if operation.public else (answer.status_code == 401)
            ), operation
        assert {o.path for o in OPERATIONS if o.public} == {"/health", "/ready"}
        for path in ("/openapi.json", "/nothing", "/v1/chat/completions"):
            answer = http.get(path)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert http.get("/").status_code == 200  # the page says nothing about anybody


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Bearer",
        f"Basic {ALICE}",
        f"Bearer {ALICE}x",
        f"Bearer {ALICE[:-1]}",
        f"Bearer {ALICE} x",
    ],
)
def test_wrong_keys(live, given):
    with live.http(headers={"authorization": given}) as http:
        assert http.get("/v1/models").json()["error"]["code"] == "invalid_api_key"


def test_the_pages_own_headers(live):
    with live.http() as http:
        headers = http.get("/").headers
    assert (
        "default-src 'none'" in headers["content-security-policy"]
        and headers["x-frame-options"] == "DENY"
    )


# What is bounded.


def test_large_bodies_are_parsed_beside_the_loop(live, monkeypatch):
    """Those of every operation: everybody else would wait for as long as that takes."""
    threads, parse = [], parsing._json

    def noted(*given):
        threads.append(threading.current_thread().name)
        return parse(*given)

    monkeypatch.setattr(parsing, "_json", noted)
    with as_(live, ALICE) as http:
        for operation in OPERATIONS:
            if operation.body is not None:
                threads.clear()
                http.request(operation.method, _path(operation), json={"owl": "o" * 5000})
                assert threads and all(name.startswith("griffin-text") for name in threads), (
                    operation
                )


def test_one_key_cannot_take_everything(llm):
    settings = Settings(max_requests_per_key=1)
    with serving(llm, keys=Keys([ALICE, BOB]), settings=settings) as live:
        body = {**CHAT, "max_tokens": 20_000, "stream": True}
        body["logit_bias"] = {str(id): -100 for id in llm.stop_ids}
        with as_(live, ALICE) as alice, as_(live, BOB) as bob:
            with alice.stream("POST", "/v1/chat/completions", json=body) as stream:
                lines = stream.iter_lines()  # forgotten, it would close the stream
                next(lines)
                refused = alice.post("/v1/chat/completions", json=CHAT)
                assert refused.json()["error"]["code"] == "too_many_requests"
                assert bob.post("/v1/chat/completions", json=CHAT).status_code == 200
            assert live.idle()
            assert alice.post("/v1/chat/completions", json=CHAT).status_code == 200


def test_limits_reach_the_protocol(live):
    with as_(live, ALICE) as http:
        for fields in (
            {"n": 99},
            {"stop": ["x"] * 99},
            {"top_logprobs": 10**9, "logprobs": True},
            {"logit_bias": {"9" * 12: 1}},
        ):
            answer = http.post("/v1/chat/completions", json=CHAT | fields)
            assert answer.status_code == 400, fields
        answer = http.get("/v1/sessions?" + "&".join(["after=a"] * 33))
        assert answer.status_code == 400 and "more than 32 values" in answer.text
    assert live.service.limits.vocab_size < Limits().vocab_size


# Names, tenants, logs.


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "..%2f..%2fetc", "a%2fb", "a%00b", "%5c", "a" * 129, ".hidden", "a%0a"]
)
def test_names_are_never_paths(live, name):
    connection = http.client.HTTPConnection(live.host, live.port, timeout=60)
    headers = {"authorization": f"Bearer {ALICE}"}
    for method, path in (("GET", f"/v1/sessions/{name}"), ("DELETE", f"/v1/states/{name}")):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status in (400, 404), path
    connection.close()


def test_each_key_sees_its_own(live):
    with as_(live, ALICE) as alice, as_(live, BOB) as bob:
        for http in (alice, bob):
            assert http.post("/v1/sessions", json={"name": "shared-name"}).status_code == 200
        alice.post("/v1/sessions", json={"name": "alices"})
        alice.post("/v1/states", json={"name": "alices", "text": "owl"})
        assert bob.get("/v1/sessions/alices").status_code == 404
        assert bob.get("/v1/states/alices").status_code == 404
        assert bob.post("/v1/chat/completions", json={**CHAT, "state": "alices"}).status_code == 404
        assert "alices" not in bob.get("/v1/sessions").text + bob.get("/v1/states").text
        made = alice.post("/v1/responses", json={"input": "x", "max_output_tokens": 2}).json()
        assert bob.get(f"/v1/responses/{made['id']}").status_code == 404
        follow = {"input": "x", "max_output_tokens": 2, "previous_response_id": made["id"]}
        assert bob.post("/v1/responses", json=follow).status_code == 404


def test_no_key_can_push_out_what_another_keeps(live, monkeypatch):
    with as_(live, ALICE) as alice, as_(live, BOB) as bob:
        assert (
            alice.post("/v1/chat/completions", json={**CHAT, "session_id": "hers"}).status_code
            == 200
        )
        alice.post("/v1/responses", json={"input": "x", "max_output_tokens": 2})
        store = live.service.store
        sessions = store.usage().sessions
        monkeypatch.setattr(store.folder, "quota_bytes", store.usage().nbytes + 5000)
        full = bob.post("/v1/chat/completions", json={**CHAT, "session_id": "his"})
        assert full.status_code == 507 and full.json()["error"]["code"] == "storage_full"
        for _ in range(5):
            bob.post("/v1/sessions", json={})
        assert alice.get("/v1/sessions/hers").json()["turns"] == 1
        assert sessions < store.usage().sessions < sessions + 5
        # Her own responses make room for her sessions, and the other way around.
        assert set(shelf(live.service, "key-a", "states").owner) == {
            "key-a",
            "key-a.states",
            "key-a.responses",
        }


def test_prefixes_are_not_shared_between_keys(live):
    """How fast an answer comes must not tell what another has asked."""
    body = {**CHAT, "messages": [{"role": "user", "content": "a long secret, " * 20}]}
    with as_(live, ALICE) as alice, as_(live, BOB) as bob:
        for _ in range(2):
            hers = alice.post("/v1/chat/completions", json=body).json()
        his = bob.post("/v1/chat/completions", json=body).json()
    assert hers["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert his["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert his["choices"] == hers["choices"]


def test_the_log_holds_nobodys_words(live, caplog):
    caplog.set_level(logging.DEBUG)
    with as_(live, ALICE) as http:
        http.post("/v1/chat/completions", json={**CHAT, "session_id": "my-session"})
        torn = {
            "content": b'{"messages": "my secret owl',
            "headers": {"content-type": "application/json"},
        }
        http.post("/v1/chat/completions", **torn)
        http.get("/v1/sessions/my-session")
        metrics = http.get("/metrics").text
    lines = [r.getMessage() for r in caplog.records if r.name.startswith(("griffin", "uvicorn"))]
    assert any("POST /v1/chat/completions 200" in line and "prompt=" in line for line in lines)
    for secret in ("secret", "owl", ALICE, "my-session"):
        assert not any(secret in line for line in lines) and secret not in metrics


def test_a_traceback_stays_inside(live, monkeypatch, caplog):
    def broken():
        raise RuntimeError("my secret owl")

    monkeypatch.setattr(live.service.metrics, "text", broken)
    with as_(live, ALICE) as http:
        answer = http.get("/metrics")
    assert answer.status_code == 500 and "secret" not in answer.text + caplog.text
    assert (
        answer.headers["x-request-id"] in answer.json()["error"]["message"]
        and "broken" in caplog.text
    )


def test_nothing_is_unpickled(live):
    """No body is taken but JSON, and the server's code has nothing that could unpickle one."""
    with as_(live, ALICE) as http:
        for operation in OPERATIONS:
            for media in ("application/octet-stream", "application/x-pickle"):
                if operation.body is not None:
                    headers = {"content-type": media}
                    answer = http.request(
                        operation.method, _path(operation), content=b"cos\n", headers=headers
                    )
                    assert answer.status_code == 415, operation
    refused = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "torch.load"}
    for path in Path(griffin.server.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named = set()
            if isinstance(node, ast.Import):
                named = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                named = {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Attribute):
                named = {ast.unparse(node)}
            assert not named & refused, path


def _path(operation) -> str:
    return operation.path.replace("{name}", "x").replace("{id}", "x").replace("{model}", "x")
