"""A request that is over leaves nothing behind: no circle keeps what it held until a collection."""

from __future__ import annotations

import asyncio
import gc

import pytest

from tests.support.waiting import until

_HI = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
_SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
_FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": _SCHEMA}}
_TOOL = {"type": "function", "function": {"name": "f", "parameters": _SCHEMA}}
_OF_REQUESTS = {
    "Exchange",
    "Run",
    "Job",
    "Writer",
    "Piece",
    "Ticket",
    "Request",
    "Context",
}


@pytest.fixture
def kept_in_circles(live):
    """Return a way to list, once all is over, what only a collection would let go of requests."""
    loop = live.service.bridge._loop
    tasks = len(asyncio.all_tasks(loop))
    gc.disable()
    gc.freeze()  # what was there before is not looked through: with all tests' modules, seconds
    gc.set_debug(gc.DEBUG_SAVEALL)

    def kept() -> set[str]:
        until(lambda: live.idle() and len(asyncio.all_tasks(loop)) <= tasks)
        gc.collect()
        return {type(each).__name__ for each in gc.garbage} & _OF_REQUESTS

    yield kept
    gc.set_debug(0)
    gc.garbage.clear()
    gc.unfreeze()
    gc.enable()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", _HI),
        ("/v1/chat/completions", {**_HI, "stream": True, "n": 2}),
        ("/v1/chat/completions", {**_HI, "stream": True, "return_progress": True}),
        ("/v1/chat/completions", {**_HI, "prompt_logprobs": 1, "return_token_ids": True}),
        ("/v1/chat/completions", {**_HI, "response_format": _FORM}),
        ("/v1/chat/completions", {**_HI, "tools": [_TOOL]}),
        ("/v1/chat/completions", {**_HI, "session_id": "kept"}),
        ("/v1/chat/completions", {**_HI, "model": "another"}),
        ("/v1/completions", {"prompt": "x y", "max_tokens": 2, "echo": True, "logprobs": 3}),
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 4}),
        ("/v1/messages", {**_HI, "stream": True}),
        ("/api/chat", {**_HI, "options": {"num_predict": 4}}),
        ("/v1/embeddings", {"input": "Hi"}),
        ("/tokenize", {"prompt": "some words " * 400}),
    ],
)
def test_a_request_leaves_nothing_in_a_circle(live, kept_in_circles, path, body):
    with live.http() as http:
        for _ in range(3):
            http.post(path, json=body)
    assert not kept_in_circles()


def test_a_client_that_leaves_takes_all_with_it(live, kept_in_circles):
    with live.http() as http:
        asked = {**_HI, "max_tokens": 4000, "stream": True, "logit_bias": {"1": -100}}
        with http.stream("POST", "/v1/chat/completions", json=asked) as answer:
            next(answer.iter_raw())
    assert not kept_in_circles()
