"""The server itself: its routes, its headers, what it frees and refuses. Its clients are in
contract/."""

from __future__ import annotations

import asyncio
import threading

import openai
import pytest
import torch
from openai import AsyncOpenAI

from griffin.answer import Writer
from tests.support.live_server import NAME, endless, serving

HI = [{"role": "user", "content": "Hi there"}]
LONG = "import json\nclass Decoder:\n    pass\n" * 40


def ask(client, **fields):
    return client.chat.completions.create(
        **{"model": NAME, "messages": HI, "max_tokens": 8, "seed": 1} | fields
    )


def text(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_echo_measures_the_prompt(client, llm):
    """What evaluations ask for: the log-probability of each token of a text, and the likeliest
    there."""
    given = "class Decoder:"
    measured = client.completions.create(
        model=NAME, prompt=given, max_tokens=0, echo=True, logprobs=2
    )
    ids = llm.tokenizer.encode(given)
    with torch.no_grad():  # over the tokenizer's ids: the toy has more embeddings than those
        logits = llm.model(torch.tensor([ids]))[0][0, :-1, : llm.tokenizer.vocab_size]
    score = logits.log_softmax(1).gather(1, torch.tensor(ids[1:])[:, None]).squeeze(1).tolist()
    shown = measured.choices[0].logprobs
    assert measured.choices[0].text == given == "".join(shown.tokens)
    assert shown.token_logprobs == pytest.approx(score, abs=1e-4)
    assert shown.text_offset[0] == 0 and all(len(top) >= 2 for top in shown.top_logprobs)
    assert measured.usage.completion_tokens == 0
    given_ids = client.completions.create(
        model=NAME, prompt=ids, max_tokens=1, echo=True, logprobs=1
    )
    logprobs = given_ids.choices[0].logprobs
    assert logprobs.token_logprobs[0] is None and len(logprobs.tokens) == len(score) + 2
    assert logprobs.token_logprobs[1:-1] == pytest.approx(score, abs=1e-4)


def test_what_was_read_is_not_read_again(live, client):
    before = ask(client, messages=[{"role": "user", "content": LONG}])
    raw = client.chat.completions.with_raw_response.create(
        model=NAME, messages=[{"role": "user", "content": LONG}], max_tokens=8, seed=1
    )
    again = raw.parse()
    cached = again.usage.prompt_tokens_details.cached_tokens
    assert cached >= again.usage.prompt_tokens - 64 > 0
    assert raw.headers["x-griffin-state"] == f"prefix; cached={cached}"
    assert again.choices[0].message.content == before.choices[0].message.content


def test_an_exact_cache_knows_whole_chunks_of_prompts_alone(llm):
    with serving(llm, exact_cache=True, chunk=32) as live:
        for _ in range(2):
            reply = ask(live.openai(), messages=[{"role": "user", "content": LONG}])
        cached = reply.usage.prompt_tokens_details.cached_tokens
        assert cached == (reply.usage.prompt_tokens - 1) // 32 * 32 > 0
        cache = live.service.engine._cache
        assert cache.counts.checkpoints == reply.usage.prompt_tokens // 32


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"model": "other"}, 404, "model_not_found", "model"),
        ({"temperature": -1}, 400, "invalid_value", "temperature"),
        ({"n": 999}, 400, "invalid_value", "n"),
        ({"messages": [{"role": "assistant"}]}, 400, "invalid_value", "messages[0].content"),
        ({"extra_body": {"state": "nothing"}}, 404, "state_not_found", None),
        ({"extra_body": {"session_id": "../x"}}, 400, "invalid_value", "session_id"),
    ],
)
def test_refusals(client, fields, status, code, param):
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError) as caught:
            ask(client, stream=stream, **fields)
        error = caught.value
        assert (error.status_code, error.code, error.param) == (status, code, param)
        assert (
            error.response.headers["x-request-id"]
            and error.response.headers["x-should-retry"] == "false"
        )


def test_fields_that_were_passed_over_are_named(client):
    raw = client.chat.completions.with_raw_response.create(
        model=NAME,
        messages=HI,
        max_tokens=2,
        extra_body={"owl": 1, "": 2},
        extra_headers={"x-request-id": "mine-7"},
    )
    assert raw.headers["x-griffin-ignored"] == "owl, ?" and raw.headers["x-request-id"] == "mine-7"


def test_tokens(live, llm):
    with live.http() as http:
        ids = http.post("/tokenize", json={"prompt": "def f("}).json()["tokens"]
        assert ids == llm.tokenizer.encode("def f(")
        assert http.post("/detokenize", json={"tokens": ids}).json()["prompt"] == "def f("
        shown = http.post("/apply-template", json={"messages": HI}).json()["prompt"]
        assert shown == "<bos><start_of_turn>user\nHi there<end_of_turn>\n<start_of_turn>model\n"


def test_the_server_about_itself(live):
    with live.http() as http:
        assert http.get("/health").json() == http.get("/ready").json() == {"status": "ok"}
        about = http.get("/v1/server").json()
        assert about["slots"] == {"total": 4, "busy": 0} and about["bytes"]["weights"] > 0
        assert about["limits"]["max_choices"] == 4
        assert http.get("/").status_code == 200 and "/v1/chat" in http.get("/openapi.json").text
        metrics = http.get("/metrics").text
        assert (
            "griffin_generation_tokens_total" in metrics
            and 'griffin_slots{state="busy"} 0.0' in metrics
        )
        assert http.get("/v1/nothing").json()["error"]["code"] == "not_found"
        wrong = http.get("/v1/chat/completions")
        assert wrong.status_code == 405 and wrong.headers["allow"] == "POST"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("content", ["Hi", LONG * 20])
def test_a_client_that_leaves_frees_its_slot(live, llm, stream, content):
    """In the middle of an answer, and in the middle of a prompt, streaming or not."""
    before = live.service.engine.stats().tokens_generated
    messages = [{"role": "user", "content": content}]
    body = {"messages": messages, "max_tokens": 20_000, "stream": stream, **endless(llm)}
    with live.post("/v1/chat/completions", body):
        assert live.busy()
        if content != "Hi":
            assert live.service.engine.stats().reading == 1
    assert live.idle()
    made = live.service.engine.stats().tokens_generated - before
    assert made < 20_000 if content == "Hi" else made == 0  # the prompt was not read to its end


def test_a_long_prompt_keeps_the_connection_alive(llm, monkeypatch):
    from griffin.server.settings import Settings

    heard, trunk = threading.Event(), llm.model.trunk
    monkeypatch.setattr(
        llm.model, "trunk", lambda *given, **more: heard.wait(60) and trunk(*given, **more)
    )
    settings = Settings(patience_seconds=0.01, keepalive_seconds=0.02)
    with serving(llm, settings=settings) as live, live.http() as http:
        body = {
            "messages": [{"role": "user", "content": LONG}],
            "max_tokens": 1,
            "stream": True,
        }
        lines = []
        with http.stream("POST", "/v1/chat/completions", json=body) as stream:
            for line in filter(None, stream.iter_lines()):
                lines.append(line)
                if line == ": keepalive":
                    heard.set()
    assert lines[0].startswith("data: ") and heard.is_set() and lines[-1] == "data: [DONE]"


def test_a_failure_in_the_engine(live, client, monkeypatch, caplog):
    """A bug shows its request's id, and its log nobody's words."""

    def broken(self, *_):
        if not self.ended:
            raise RuntimeError("the prompt was: Hi there")

    monkeypatch.setattr(Writer, "take", broken)
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client)
    assert caught.value.response.headers["x-request-id"] in str(caught.value)
    assert "Hi there" not in caplog.text and "test_app.py" in caplog.text
    assert live.idle()


def test_shutting_down(llm):
    """Who is served is served to the end; who comes is sent away."""
    from griffin.server.settings import Settings

    with serving(llm, settings=Settings(drain_seconds=600)) as live:
        client = live.openai()
        short = ask(client, max_tokens=100, stream=True, **endless(llm))
        next(iter(short))
        live.service.draining = True
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client)
        assert caught.value.status_code == 503 and caught.value.code == "not_ready"
        with live.http() as http:
            assert http.get("/ready").status_code == 503 and http.get("/health").status_code == 200
        live.server.stop()
        assert list(short)[-1].choices[0].finish_reason == "length"


def test_what_takes_too_long_while_shutting_down_is_told_so(llm):
    from griffin.server.settings import Settings

    with serving(llm, settings=Settings(drain_seconds=0.05)) as live:
        long = ask(live.openai(), max_tokens=30_000, stream=True, **endless(llm))
        next(iter(long))
        live.server.stop()
        with pytest.raises(openai.APIError, match="shutting down"):
            list(long)


@pytest.mark.thorough
def test_the_async_client_alone_and_in_company(live, llm):
    """A few dozen ragged clients, some of which leave; each answer is the one it gets alone."""
    prompts = [("def f(" + "x, " * (7 * n % 40), n, 3 + 5 * n % 17) for n in range(32)]

    async def one(client, prompt, seed, count):
        messages = [{"role": "user", "content": prompt}]
        fields = {"model": NAME, "messages": messages, "seed": seed}
        if seed % 4 == 3:  # it leaves
            stream = await client.chat.completions.create(**fields, max_tokens=5000, stream=True)
            async for _ in stream:
                await stream.close()
                return None
        if seed % 2:
            stream = await client.chat.completions.create(**fields, max_tokens=count, stream=True)
            return "".join([c.choices[0].delta.content or "" async for c in stream])
        return (
            (await client.chat.completions.create(**fields, max_tokens=count))
            .choices[0]
            .message.content
        )

    async def all_():
        async with AsyncOpenAI(api_key="none", base_url=f"{live.url}/v1", max_retries=8) as client:
            return await asyncio.gather(*(one(client, *prompt) for prompt in prompts))

    answers = asyncio.run(all_())
    for (prompt, seed, count), answer in zip(prompts, answers, strict=True):
        if answer is not None:
            alone = llm.chat([{"role": "user", "content": prompt}], seed=seed, max_tokens=count)
            assert answer == alone.text
    assert live.idle()
