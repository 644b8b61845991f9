"""Log-probabilities: as many as one request may have, written beside the loop."""

from __future__ import annotations

import json
import threading
from typing import Any, cast

import openai
import pytest

from griffin.server.settings import Settings
from tests.support.live_server import CHAT, NAME, serving
from tests.support.waiting import until

ECHO: dict[str, Any] = {"model": NAME, "max_tokens": 0, "logprobs": 2, "extra_body": {"echo": True}}
LONG = [3 + n % 400 for n in range(700)]  # three chunks of the model


def joined(stream):
    """Put the pieces of a stream of one choice together."""
    text, columns = "", {}
    for event in stream:
        for choice in event.choices:
            text += choice.text
            for name, values in (choice.logprobs.model_dump() if choice.logprobs else {}).items():
                columns.setdefault(name, []).extend(values or [])
    return text, columns


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("generated", [0, 3])
def test_a_stream_of_an_echo_is_what_the_whole_answer_is(client, generated, n):
    asked = ECHO | {"prompt": [LONG, LONG[:5]], "max_tokens": generated, "n": n, "seed": 3}
    whole = client.completions.create(**asked)
    found = [("", {}) for _ in whole.choices]
    pieces = list(client.completions.create(**asked, stream=True))
    for index in range(len(found)):
        own = [e.model_copy(update={"choices": [c]}) for e in pieces for c in e.choices]
        found[index] = joined(e for e in own if e.choices[0].index == index)
    for choice, (text, columns) in zip(whole.choices, found, strict=True):
        assert choice.text == text
        assert {k: v for k, v in choice.logprobs.model_dump().items() if v is not None} == columns
    # In pieces: nothing waits until a long prompt is written as a whole.
    assert sum(len(event.model_dump_json()) > 100_000 for event in pieces) == 0
    assert len(whole.choices[0].logprobs.tokens) == 700 + generated


@pytest.mark.parametrize("stream", [False, True])
def test_more_than_a_request_may_have(llm, stream):
    with serving(llm, limits={"max_scores": 100}) as live:
        client: Any = live.openai()
        taken = ECHO | {"prompt": LONG[:33], "stream": stream}
        client.completions.create(**taken)
        for more in ({"prompt": LONG[:34]}, {"n": 2}, {"logprobs": 3}, {"prompt": [LONG[:17]] * 2}):
            with pytest.raises(openai.BadRequestError) as caught:
                client.completions.create(**taken | more)
            assert caught.value.param == "logprobs" and "--max-scores" in caught.value.message
            assert live.service.engine.stats().tokens_read == 0  # nothing was begun
        chat = {**CHAT, "model": NAME, "logprobs": True, "top_logprobs": 4}
        client.chat.completions.create(**chat, stream=stream)
        if stream:  # they are sent, not kept
            client.chat.completions.create(**chat | {"max_tokens": 21}, stream=True).close()
        else:
            with pytest.raises(openai.BadRequestError) as caught:
                client.chat.completions.create(**chat | {"max_tokens": 21})
            assert caught.value.param == "max_tokens" and "--max-scores" in caught.value.message
            client.chat.completions.create(**CHAT | {"model": NAME, "max_tokens": 300})


def test_alternatives_are_not_kept_where_they_are_sent(live, llm):
    client: Any = live.openai()
    asked = {**CHAT, "model": NAME, "max_tokens": 40, "logprobs": True, "top_logprobs": 5}
    asked["logit_bias"] = {str(id): -100 for id in llm.stop_ids}
    stream = client.chat.completions.create(**asked, stream=True)
    next(iter(stream))
    runs = list(live.service.bridge.runs)
    events = list(stream)
    assert all(len(e.choices[0].logprobs.content[0].top_logprobs) == 5 for e in events[1:20])
    assert [e.alternatives for run in runs for w in run.writers for e in w.events] == [()] * 40


def test_one_deadline_is_for_all_prompts_of_a_request(llm, monkeypatch):
    from griffin.server.endpoints.completions import route

    scored = []

    def slow(llm, ids, alternatives, stop):
        scored.append(1)
        stop.wait(60)
        raise RuntimeError("cancelled")
        yield

    monkeypatch.setattr(route, "score_prompt", slow)
    with serving(llm, settings=Settings(deadline_seconds=0.2)) as live:
        with pytest.raises(openai.APIStatusError) as caught:
            cast("Any", live.openai()).completions.create(**ECHO | {"prompt": [[1, 2]] * 5})
        assert caught.value.status_code == 504 and scored == [1]
        until(lambda: not live.service._running and not len(live.service._measured))


def test_measuring_counts_among_a_keys_requests(llm, monkeypatch):
    from griffin.server.endpoints.completions import route

    begun, end, score = threading.Event(), threading.Event(), route.score_prompt

    def slow(*given):
        begun.set()
        assert end.wait(60)
        return score(*given)

    monkeypatch.setattr(route, "score_prompt", slow)
    with serving(llm, settings=Settings(max_requests_per_key=1)) as live:
        client: Any = live.openai()
        found: list[Any] = []
        asked = ECHO | {"prompt": [1, 2, 3]}
        first = threading.Thread(target=lambda: found.append(client.completions.create(**asked)))
        first.start()
        assert begun.wait(60)
        for refused in (asked, {**asked, "max_tokens": 1, "extra_body": {}}):
            with pytest.raises(openai.RateLimitError) as caught:
                client.completions.create(**refused)
            assert caught.value.code == "too_many_requests"
        end.set()
        first.join(60)
        assert len(found[0].choices[0].logprobs.tokens) == 3
        assert json.loads(found[0].model_dump_json())["usage"]["prompt_tokens"] == 3


def test_schemas_that_are_long_together_are_refused_before_they_are_compiled(llm, monkeypatch):
    monkeypatch.setattr(llm.grammars, "compile", lambda grammar: pytest.fail("it was compiled"))
    with serving(llm, limits={"max_grammar_bytes": 500}) as live:
        function = {"parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
        tools = [{"type": "function", "function": {**function, "name": f"f{n}"}} for n in range(20)]
        with pytest.raises(openai.BadRequestError, match="schemas have") as caught:
            cast("Any", live.openai()).chat.completions.create(**CHAT, model=NAME, tools=tools)
        assert caught.value.param == "tools" and "--max-grammar-bytes" in caught.value.message
