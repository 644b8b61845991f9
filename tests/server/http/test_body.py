"""Bodies: of one kind, and bounded in size, in time, and all together."""

from __future__ import annotations

import json

import pytest

from griffin.server.errors import ApiError
from griffin.server.http.body import Budget
from tests.support.live_server import ALICE, CHAT, as_, endless, received


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


def test_bodies_that_never_end(hasty):
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer"
        f" {ALICE}\r\n"
    )
    head += "content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    with hasty.raw(head.encode()) as sock:
        answer = received(sock)
    assert b" 408 " in answer and b"body_timeout" in answer


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
