"""Connections: how many, and how long a client may take to speak and to listen."""

from __future__ import annotations

import json
import time

import httpx2
import pytest

from tests.server.live import ALICE, CHAT, received


def test_headers_that_never_end(live):
    for begun in (b"", b"GET /health HTTP/1.1\r\nhost: loc"):
        with live.raw(begun) as sock:
            start = time.monotonic()
            assert received(sock) == b"" and time.monotonic() - start < 2
    # After an answer, too.
    with live.raw(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n") as sock:
        assert b"200 OK" in sock.recv(4096)
        sock.sendall(b"GET /hea")
        assert b"HTTP" not in received(sock)


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
        assert not received(sock).endswith(b"0\r\n\r\n")
    assert live.service.budget.held == 0
