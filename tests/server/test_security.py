"""Who is kept out, and what is bounded: a test for each guard, which fails without it."""

from __future__ import annotations

import ast
import asyncio
import hmac
import http.client
import json
import logging
import socket
import threading
import time
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner

import griffin
from griffin.cli import main
from griffin.server import keeping
from griffin.server.build import build
from griffin.server.errors import ApiError
from griffin.server.http.body import Budget
from griffin.server.http.hosts import Hosts, is_loopback
from griffin.server.http.keys import Keys, check_exposure
from griffin.server.http.sockets import bound_to_path
from griffin.server.limits import Limits
from griffin.server.protocol import body as parsing
from griffin.server.protocol.operations import OPERATIONS
from griffin.server.run import Server
from griffin.server.settings import Settings
from tests.server.fleet.test_supervisor import until
from tests.server.live import endless, serving

ALICE, BOB = "alice-key-0123456789", "bob-key-0123456789"
CHAT = {"messages": [{"role": "user", "content": "my secret owl"}], "max_tokens": 4, "seed": 1}


@pytest.fixture(scope="module")
def live(llm, tmp_path_factory):
    """A server with two keys, small limits and little patience."""
    settings = Settings(
        body_seconds=0.3,
        header_seconds=0.3,
        send_seconds=0.5,
        max_header_bytes=4096,
        max_connections=20,
    )
    with serving(
        llm,
        tmp_path_factory.mktemp("guard") / "store",
        keys=Keys([ALICE, BOB]),
        settings=settings,
        limits={"max_body_bytes": 100_000},
    ) as live:
        yield live


def as_(live, key, **headers):
    return live.http(headers={"authorization": f"Bearer {key}", **headers})


# Who may come in.


def test_the_default_is_this_machine_alone():
    host = next(param for param in _serve().params if param.name == "host")
    assert is_loopback(host.default)
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "127.9.9.9")] == [True] * 4
    assert not any(
        is_loopback(h) for h in ("0.0.0.0", "::", "192.168.1.5", "localhost.evil.example", "")
    )


def _serve():
    from griffin.cli.serve import command

    return command


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "::", "example.org"])
def test_other_machines_need_a_key(host):
    """Said before the model is loaded, which may take minutes."""
    refused = CliRunner().invoke(main, ["serve", "--host", host, "--model", "/nowhere"])
    assert refused.exit_code == 2 and "no API key" in refused.output
    check_exposure(host, None, Keys([ALICE]), False)
    check_exposure(host, None, Keys(), True)


def test_keys_come_from_files_that_others_cannot_read(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# ours\n{ALICE}\n\n{BOB}\n")
    path.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        Keys.read(path)
    path.chmod(0o600)
    keys = Keys.read(path)
    assert keys.namespace(f"Bearer {ALICE}") != keys.namespace(f"bearer {BOB}")
    for wrong in ("short", "with space 0123456789", "ключ-0123456789-0123456789"):
        with pytest.raises(ValueError, match="key 1"):
            Keys([wrong])


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


def test_keys_are_compared_in_constant_time(monkeypatch):
    """All of them, whichever fits, by digests of one length."""
    keys, compared, compare = Keys([ALICE, BOB]), [], hmac.compare_digest

    def noted(a, b):
        compared.append((len(a), len(b)))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    keys.namespace(f"Bearer {ALICE}")
    with pytest.raises(ApiError):
        keys.namespace("Bearer x")
    assert compared == [(32, 32)] * 4
    assert ALICE.encode() not in b"".join(keys._digests)


# Pages that speak to the server behind one's back.


def test_a_name_that_is_not_ours(live):
    for host in (
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
    ):
        with as_(live, ALICE, host=host) as http:
            answer = http.get("/v1/models")
            assert answer.status_code == 403 and answer.json()["error"]["code"] == "forbidden", host
    for host in ("localhost", f"127.0.0.1:{live.port}", "[::1]:8000"):
        with as_(live, ALICE, host=host) as http:
            assert http.get("/v1/models").status_code == 200, host


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example"]
)
def test_a_page_from_elsewhere(live, origin):
    with as_(live, ALICE, origin=origin) as http:
        assert http.post("/v1/chat/completions", json=CHAT).status_code == 403
        assert http.delete("/v1/sessions/x").status_code == 403
        assert http.options("/v1/chat/completions").status_code == 403
        read = http.get("/v1/models")
        assert not [name for name in read.headers if name.startswith("access-control")]


def test_our_own_page(live):
    with as_(live, ALICE, origin=live.url) as http:
        assert http.post("/v1/chat/completions", json=CHAT).status_code == 200


def test_a_page_that_was_allowed(llm):
    hosts = Hosts(origins=["https://chat.example.org"])
    with (
        serving(llm, hosts=hosts) as live,
        live.http(headers={"origin": "https://chat.example.org"}) as http,
    ):
        asked = http.options("/v1/chat/completions")
        assert asked.status_code == 204
        assert asked.headers["access-control-allow-origin"] == "https://chat.example.org"
        assert "access-control-allow-credentials" not in asked.headers
        answer = http.post("/v1/chat/completions", json=CHAT)
        assert answer.headers["access-control-allow-origin"] == "https://chat.example.org"
    with pytest.raises(ValueError, match="no wildcards"):
        Hosts(origins=["*"])


@pytest.mark.parametrize(
    "media", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_a_body_that_a_form_could_send(live, media):
    headers = {"content-type": media} if media else {}
    with as_(live, ALICE) as http:
        answer = http.post("/v1/chat/completions", content=json.dumps(CHAT), headers=headers)
        assert (
            answer.status_code == 415 and answer.json()["error"]["code"] == "unsupported_media_type"
        )
        zipped = {"content-type": "application/json", "content-encoding": "gzip"}
        assert http.post("/v1/chat/completions", content=b"x", headers=zipped).status_code == 415


def test_the_pages_own_headers(live):
    with live.http() as http:
        headers = http.get("/").headers
    assert (
        "default-src 'none'" in headers["content-security-policy"]
        and headers["x-frame-options"] == "DENY"
    )


def test_a_unix_socket_is_closed_to_others_before_anybody_can_connect(llm, tmp_path, monkeypatch):
    path, modes, listen = tmp_path / "door", [], socket.socket.listen

    def noted(self, *given):
        modes.append(path.stat().st_mode & 0o777)
        return listen(self, *given)

    monkeypatch.setattr(socket.socket, "listen", noted)
    server = Server(build(llm, name="toy", slots=1), [bound_to_path(path)])
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    until(lambda: server.started, 20)
    try:
        with httpx2.Client(
            transport=httpx2.HTTPTransport(uds=str(path)), base_url="http://localhost"
        ) as http:
            assert http.get("/health").status_code == 200 and server.url == f"unix:{path}"
        with pytest.raises(OSError, match="another one listens there"):
            bound_to_path(path)
    finally:
        server.stop()
        thread.join(20)
    assert modes == [0o600]


# What is bounded.


def test_large_bodies_are_refused_before_they_are_read(live):
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer"
        f" {ALICE}\r\n"
    )
    head += "content-type: application/json\r\n"
    with live.raw(f"{head}content-length: 999999999999\r\n\r\n".encode()) as sock:
        assert b"413" in sock.recv(100)
    with live.raw(f"{head}transfer-encoding: chunked\r\n\r\n".encode()) as sock:
        sock.sendall(b"186A1\r\n" + b" " * 100_001 + b"\r\n")
        assert b"413" in sock.recv(100)
    with as_(live, ALICE) as http:
        assert http.post("/v1/chat/completions", json=CHAT).status_code == 200


def test_bodies_that_never_end(live):
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer"
        f" {ALICE}\r\n"
    )
    head += "content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    with live.raw(head.encode()) as sock:
        answer = _all(sock)
    assert b" 408 " in answer and b"body_timeout" in answer


def test_headers_that_never_end(live):
    for begun in (b"", b"GET /health HTTP/1.1\r\nhost: loc"):
        with live.raw(begun) as sock:
            start = time.monotonic()
            assert _all(sock) == b"" and time.monotonic() - start < 2
    # After an answer, too.
    with live.raw(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n") as sock:
        assert b"200 OK" in sock.recv(4096)
        sock.sendall(b"GET /hea")
        assert b"HTTP" not in _all(sock)


def test_large_headers(live):
    with live.http() as http:
        answer = http.get("/health", headers={"x-owl": "o" * 5000})
    assert answer.status_code in (400, 431)


def test_more_connections_than_there_may_be(live):
    held = [live.raw(b"") for _ in range(25)]
    try:
        with pytest.raises((httpx2.HTTPError, OSError)), live.http() as http:
            http.get("/health")
    finally:
        for sock in held:
            sock.close()
    time.sleep(0.1)
    with live.http() as http:
        assert http.get("/health").status_code == 200


def test_a_client_that_never_reads(live, llm):
    """Its answer ends, its slot is free, and its connection gone."""
    body = {
        **CHAT,
        "max_tokens": 20_000,
        "n": 4,
        "stream": True,
        "logprobs": True,
        "top_logprobs": 20,
    }
    body["logit_bias"] = {str(id): -100 for id in llm.stop_ids}
    content = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer"
        f" {ALICE}\r\n"
    )
    head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    before = live.service.engine.stats().tokens_generated
    with live.raw(head.encode() + content, buffer=4096) as sock:
        assert live.busy()
        assert live.idle(15)
        assert live.service.engine.stats().tokens_generated - before < 80_000
        assert not _all(sock).endswith(b"0\r\n\r\n")
    assert live.service.budget.held == 0


def test_bodies_together_are_bounded():
    budget = Budget(100)
    budget.take(80)
    with pytest.raises(ApiError) as caught:
        budget.take(21)
    assert caught.value.status == 503
    budget.give(80)
    budget.take(100)


def test_a_body_is_held_until_its_answer_is_over(live, llm):
    content = json.dumps({**CHAT, "max_tokens": 20_000, "stream": True, **endless(llm)}).encode()
    with as_(live, ALICE, **{"content-type": "application/json"}) as http:
        with http.stream("POST", "/v1/chat/completions", content=content) as stream:
            lines = stream.iter_lines()
            next(lines)
            assert live.service.budget.held == len(content)
        assert live.idle() and live.service.budget.held == 0


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
            {"max_tokens": 10**9},
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
    connection = http.client.HTTPConnection(live.host, live.port, timeout=10)
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
        monkeypatch.setattr(store, "quota_bytes", store.usage().nbytes + 5000)
        full = bob.post("/v1/chat/completions", json={**CHAT, "session_id": "his"})
        assert full.status_code == 507 and full.json()["error"]["code"] == "storage_full"
        for _ in range(5):
            bob.post("/v1/sessions", json={})
        assert alice.get("/v1/sessions/hers").json()["turns"] == 1
        assert sessions < store.usage().sessions < sessions + 5
        # Her own responses make room for her sessions, and the other way around.
        assert set(keeping.sessions(live.service, "key-a", "states").owner) == {
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


def _all(sock) -> bytes:
    """Return what comes until the other side closes."""
    received = b""
    try:
        while piece := sock.recv(65536):
            received += piece
    except ConnectionError:
        pass
    return received
