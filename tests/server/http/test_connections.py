"""Connections: how many, and how long a client may take to speak and to listen."""

from __future__ import annotations

import json
from contextlib import suppress

import httpx2
import pytest

from tests.support.live_server import ALICE, CHAT, received
from tests.support.waiting import until


@pytest.mark.thorough
def test_headers_that_never_end(hasty):
    for begun in (b"", b"GET /health HTTP/1.1\r\nhost: loc"):
        with hasty.raw(begun) as sock:
            assert received(sock) == b""  # and the connection is closed
    # After an answer, too.
    with hasty.raw(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n") as sock:
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

    def free():
        with suppress(httpx2.HTTPError, OSError), live.http() as http:
            return http.get("/health").status_code == 200

    until(free)


@pytest.mark.thorough
def test_a_client_that_never_reads(hasty, llm):
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
    with hasty.raw(head.encode() + content, buffer=4096) as sock:
        assert hasty.busy()
        assert hasty.idle()
        assert hasty.service.engine.stats().tokens_generated < 80_000
        assert not received(sock).endswith(b"0\r\n\r\n")
    assert hasty.service.budget.held == 0
