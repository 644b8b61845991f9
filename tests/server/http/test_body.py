"""Bodies: of one kind, and bounded in size, in time, and all together."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffin.server.errors import ApiError
from griffin.server.http.body import Budget, read_body
from griffin.server.http.keys import Keys
from griffin.server.limits import Limits
from griffin.server.settings import Settings
from tests.support.live_server import ALICE, BOB, CHAT, as_, endless, received, serving
from tests.support.waiting import until


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


@pytest.mark.parametrize(("times", "expect", "read"), [(2, False, 3), (2, True, 0), (9, False, 0)])
def test_a_body_a_little_too_large_passes_by_so_that_its_sender_hears_why(times, expect, read):
    limits = Limits(max_body_bytes=100)
    headers = {"content-type": "application/json", "content-length": str(100 * times)}
    came = []

    async def receive():
        came.append(1)
        return {"type": "http.request", "body": b"x" * 60, "more_body": len(came) < 3}

    with pytest.raises(ApiError, match="this server accepts 100") as caught:
        asyncio.run(
            read_body(
                receive,
                headers | ({"expect": "100-continue"} if expect else {}),
                limits,
                lambda count: None,
                1.0,
            )
        )
    assert caught.value.status == 413 and len(came) == read


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


def test_nobody_holds_what_others_need():
    """A holder may have as much as it leaves free, so there is always room for one more."""
    budget = Budget(100)
    budget.take(50, "a")
    with pytest.raises(ApiError) as caught:
        budget.take(1, "a")
    assert caught.value.status == 429 and caught.value.headers["retry-after"] == "1"
    budget.take(25, "b")
    with pytest.raises(ApiError):
        budget.take(1, "b")
    budget.take(12, "c")
    budget.give(50, "a")
    budget.take(18, "b")
    assert budget.held == 55


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 300)), max_size=60))
def test_whoever_comes_finds_room(moves):
    budget, held = Budget(1000), dict.fromkeys("abcd", 0)
    for holder, count in moves:
        try:
            budget.take(count, holder)
            held[holder] += count
        except ApiError:
            budget.give(held[holder], holder)
            held[holder] = 0
        assert budget.held == sum(held.values()) < 1000
        least = (1000 - budget.held) // 2
        assert least >= 1000 // 2**5 - 4 or len([h for h in held.values() if h]) == 4
        budget.take(least, "new")
        budget.give(least, "new")


def test_what_requests_of_one_holder_share_counts_once():
    budget = Budget(100)
    budget.share("x", 40, "a")
    budget.share("x", 40, "a")
    with pytest.raises(ApiError):
        budget.share("y", 40, "a")
    budget.share("x", 30, "b")
    assert budget.held == 70
    budget.unshare("x", 40, "a")
    assert budget.held == 70
    budget.unshare("x", 40, "a")
    budget.unshare("x", 30, "b")
    assert budget.held == 0


def test_grammars_hold_a_share_of_the_budget(llm):
    """The same one counts once for a key; others of that key have to wait, those of another not."""

    def asked(*names: str) -> dict:
        properties = {name: {"type": "string"} for name in names}
        parameters = {"type": "object", "properties": properties}
        tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
        return {**CHAT, "max_tokens": 20_000, "stream": True, "tools": [tool], **endless(llm)}

    settings = Settings(max_buffered_bytes=1 << 20)
    with serving(llm, keys=Keys([ALICE, BOB]), settings=settings) as live:
        heavy = [asked(*(f"{letter}{n:030}" for n in range(16))) for letter in "ab"]
        with as_(live, ALICE) as alice, as_(live, BOB) as bob:
            path = "/v1/chat/completions"
            with alice.stream("POST", path, json=heavy[0]) as first:
                assert first.status_code == 200
                held = live.service.budget.held
                assert held > 1 << 18
                with alice.stream("POST", path, json=heavy[0]) as second:
                    assert second.status_code == 200
                    assert live.service.budget.held < held + (1 << 12)
                refused = alice.post(path, json=heavy[1])
                assert refused.status_code == 429 and "grammars" in refused.text
                small = {**asked("a"), "max_tokens": 2}
                assert bob.post(path, json=small).status_code == 200
        assert live.idle() and live.service.budget.held == 0


def test_bodies_that_never_end_hold_a_share_of_the_budget(llm):
    """Those of one key leave room for those of another."""
    settings = Settings(max_buffered_bytes=4 << 20)
    with serving(llm, keys=Keys([ALICE, BOB]), settings=settings) as live:
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type:"
            f" application/json\r\nauthorization: Bearer {ALICE}\r\ncontent-length: 1000000\r\n\r\n"
        ).encode()
        slow = [live.raw(head + b"{" + b" " * 999_000) for _ in range(5)]
        until(lambda: live.service.budget.held >= 1_900_000)
        with as_(live, BOB) as http:
            assert http.post("/tokenize", json={"prompt": "x" * 900_000}).status_code == 200
            assert http.post("/v1/chat/completions", json=CHAT).status_code == 200
        for sock in slow:
            sock.close()
        assert live.idle() and live.service.budget.held == 0


def test_a_body_is_held_until_its_answer_is_over(live, llm):
    content = json.dumps({**CHAT, "max_tokens": 20_000, "stream": True, **endless(llm)}).encode()
    with as_(live, ALICE, **{"content-type": "application/json"}) as http:
        with http.stream("POST", "/v1/chat/completions", content=content) as stream:
            lines = stream.iter_lines()
            next(lines)
            assert live.service.budget.held == len(content)
        assert live.idle() and live.service.budget.held == 0
