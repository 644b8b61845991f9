"""What goes wrong, as the official client tells it: its classes, its retries, and leaving in the
middle."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, cast

import openai
import pytest

from griffin.answer import Writer
from griffin.server.http.keys import Keys
from griffin.server.settings import Settings
from tests.support.live_server import NAME, endless, serving
from tests.support.openai_caller import HI, calling

KEY = "a-key-of-some-length"
MANY = 20_000


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "kind_", "code", "param"),
    [
        ({"temperature": -1}, openai.BadRequestError, "invalid_value", "temperature"),
        (
            {"messages": [{"role": "owl", "content": "x"}]},
            openai.BadRequestError,
            "invalid_value",
            None,
        ),
        ({"model": "gpt-9"}, openai.NotFoundError, "model_not_found", "model"),
        ({"extra_body": {"state": "nothing"}}, openai.NotFoundError, "state_not_found", None),
        (
            {"extra_headers": {"host": "evil.example"}},
            openai.PermissionDeniedError,
            "forbidden",
            None,
        ),
    ],
    ids=["400", "400 deep", "404", "404 state", "403"],
)
def test_a_wrong_request(client, stream, fields, kind_, code, param):
    """It is told by its class and asked once only, however patient the client."""
    with pytest.raises(kind_) as caught:
        client.with_options(max_retries=3).chat(stream=stream, **fields)
    error = caught.value
    assert error.code == code and error.request_id
    assert param is None or error.param == param
    assert error.response.headers["x-should-retry"] == "false"


def test_a_server_with_keys_and_small_limits(kind, llm):
    limits = {"max_body_bytes": 5000, "max_prompt_tokens": 200}
    with serving(llm, keys=Keys([KEY]), limits=limits) as live:
        with calling(kind, live, "a-wrong-key-of-some-length") as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                client.chat()
            assert caught.value.code == "invalid_api_key"
        with calling(kind, live, KEY) as client:
            assert client.chat().choices[0].message.content
            with pytest.raises(openai.APIStatusError) as caught:
                client.chat(messages=[{"role": "user", "content": "x" * 6000}])
            assert caught.value.status_code == 413 and caught.value.code == "request_too_large"
            with pytest.raises(openai.BadRequestError) as caught:
                client.chat(messages=[{"role": "user", "content": "x y " * 300}])
            assert caught.value.code == "context_length_exceeded"


def test_a_session_that_another_process_has_is_tried_again(live, client, kind):
    """409 at once; the client asks again by itself, and then it is free."""
    asked = {"extra_body": {"session_id": f"busy-{kind}"}}
    client.chat(**asked)
    with live.service.store.open(f"busy-{kind}", live.service.fingerprint) as held:
        with pytest.raises(openai.ConflictError) as caught:
            client.chat(**asked)
        assert caught.value.code == "session_busy"
        assert "x-should-retry" not in caught.value.response.headers
        threading.Timer(0.2, held.close).start()
        patient = client.with_options(max_retries=8)
        assert patient.chat(**asked).choices[0].message.content


@pytest.mark.sweep
def test_a_full_queue_is_tried_again(kind, llm):
    """Who is sent away with a 429 comes back by himself after the time he was told."""
    with serving(llm, slots=1, max_waiting=1) as live, calling(kind, live) as client:
        busy, messages = [live.openai() for _ in range(2)], cast("list[Any]", HI)
        streams = [
            one.chat.completions.create(
                model=NAME, messages=messages, max_tokens=MANY, stream=True, **endless(llm)
            )
            for one in busy
        ]
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat()
        assert (
            caught.value.code == "queue_full"
            and caught.value.response.headers["retry-after"] == "1"
        )
        assert "x-should-retry" not in caught.value.response.headers

        def make_room():
            """When the second one has been sent away."""
            while refused(live) < 2:
                time.sleep(0.01)
            for stream in streams:
                stream.close()

        helper = threading.Thread(target=make_room, daemon=True)
        helper.start()
        answer = client.with_options(max_retries=60).chat()
        helper.join(60)
        assert answer.usage.completion_tokens == 8 and refused(live) >= 2


def refused(live):
    """Return how many requests a server has sent away because its queue was full."""
    labels = {
        "endpoint": "POST /v1/chat/completions",
        "model": NAME,
        "finish_reason": "error",
        "code": "queue_full",
    }
    return live.service.metrics.registry.get_sample_value("griffin_requests_total", labels) or 0


def test_a_deadline(kind, llm):
    with (
        serving(llm, settings=Settings(deadline_seconds=0.2)) as live,
        calling(kind, live) as client,
    ):
        with pytest.raises(openai.InternalServerError) as caught:
            client.with_options(max_retries=2).chat(max_tokens=MANY, **endless(llm))
        assert caught.value.status_code == 504 and caught.value.code == "timeout"
        assert caught.value.response.headers["x-should-retry"] == "false"
        with pytest.raises(openai.APIError, match="whole time"):
            client.rest(client.chat(max_tokens=MANY, stream=True, **endless(llm)))
        assert live.idle()


@pytest.fixture
def breaking(monkeypatch):
    """Return an event: once it is set, whatever is being written breaks."""
    take, now = Writer.take, threading.Event()

    def broken(self, event):
        if now.is_set() and not self.ended:
            raise RuntimeError("the prompt was: Hi there")
        return take(self, event)

    monkeypatch.setattr(Writer, "take", broken)
    return now


def test_an_error_in_mid_stream_is_raised(live, client, llm, breaking):
    stream = client.chat(stream=True, max_tokens=MANY, **endless(llm))
    client.first(stream)
    breaking.set()
    with pytest.raises(openai.APIError, match="its log has more under") as caught:
        client.rest(stream)
    assert "Hi there" not in str(caught.value)
    assert not isinstance(caught.value, openai.APIStatusError)  # its status was 200 long before
    assert live.idle()


def test_a_response_that_breaks_says_so(live, client, llm, breaking):
    extra = endless(llm)
    stream = client(
        lambda c: c.responses.create(model=NAME, input="Hi there", stream=True, extra_body=extra)
    )
    client.first(stream)
    breaking.set()
    events = client.rest(stream)
    assert events[-1].type == "response.failed" and events[-1].response.error.code == "server_error"
    with pytest.raises(openai.NotFoundError):
        client(lambda c: c.responses.retrieve(events[-1].response.id))
    assert live.idle()


def test_who_closes_a_stream_frees_its_slot(live, client, llm):
    before = live.service.engine.stats().tokens_generated
    stream = client.chat(stream=True, max_tokens=MANY, n=3, **endless(llm))
    client.first(stream)
    assert live.service.engine.stats().busy == 3
    client.close(stream)
    assert live.idle() and live.service.engine.stats().tokens_generated - before < MANY


def test_whose_patience_ends_frees_its_slot(live, client, llm):
    before = live.service.engine.stats().tokens_generated
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).chat(max_tokens=MANY, **endless(llm))
    assert live.idle() and live.service.engine.stats().tokens_generated - before < MANY


@pytest.mark.parametrize("stream", [False, True])
def test_a_task_that_is_cancelled_frees_its_slot(live, llm, stream):
    before = live.service.engine.stats().tokens_generated

    async def ask(client):
        fields = {"model": NAME, "messages": HI, "max_tokens": MANY, **endless(llm)}
        answer = await client.chat.completions.create(**fields, stream=stream)
        async for _ in answer:
            pass

    async def cancel(client):
        task = asyncio.create_task(ask(client))
        while not live.service.engine.stats().running:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with calling("async", live) as caller:
        caller.runner.run(cancel(caller.client))
        assert live.idle() and live.service.engine.stats().tokens_generated - before < MANY
