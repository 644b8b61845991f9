"""Chats and completions by the official client: each answer is the one that the model gives
alone."""

from __future__ import annotations

import openai
import pytest

from tests.support.live_server import NAME
from tests.support.openai_caller import HI, text


def test_models(client, llm):
    (only,) = client.all(lambda c: c.models.list())
    assert only.id == NAME and client(lambda c: c.models.retrieve(NAME)) == only
    assert only.griffin["parameters"] == sum(p.numel() for p in llm.model.parameters())
    assert only.griffin["state_bytes"] > 0 and only.griffin["chat"] is True
    with pytest.raises(openai.NotFoundError) as caught:
        client(lambda c: c.models.retrieve("google/other"))
    assert caught.value.code == "model_not_found"


def test_the_answer_is_the_models(client, llm):
    alone = llm.chat(HI, seed=1, max_tokens=8)
    answer = client.chat()
    (choice,) = answer.choices
    assert choice.message.content == alone.text and choice.message.role == "assistant"
    assert choice.finish_reason == alone.finish_reason == "length"
    used = answer.usage
    assert (used.prompt_tokens, used.completion_tokens) == (alone.prompt_tokens, 8)
    assert used.total_tokens == alone.prompt_tokens + 8
    assert answer.id.startswith("chatcmpl-") and answer.model == NAME and answer.system_fingerprint


def test_streaming_says_the_same(client):
    whole = client.chat().choices[0].message.content
    chunks = client.rest(client.chat(stream=True))
    assert text(chunks) == whole
    assert (
        chunks[0].choices[0].delta.role == "assistant"
        and chunks[-1].choices[0].finish_reason == "length"
    )
    assert len({chunk.id for chunk in chunks}) == 1
    assert not any("usage" in chunk.model_fields_set for chunk in chunks)
    counted = client.rest(client.chat(stream=True, stream_options={"include_usage": True}))
    assert counted[-1].choices == [] and counted[-1].usage.completion_tokens == 8
    assert all(chunk.usage is None for chunk in counted[:-1])


def test_the_clients_own_stream_helper(client):
    """It puts the deltas together by itself; it would raise for an answer that was cut at its
    length."""
    stop = client.chat().choices[0].message.content[4:6]
    asked = {
        "model": NAME,
        "messages": HI,
        "max_tokens": 8,
        "seed": 1,
        "stop": stop,
        "logprobs": True,
    }
    if client.runner is None:
        with client.client.chat.completions.stream(**asked) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_completion()
    else:

        async def collect():
            async with client.client.chat.completions.stream(**asked) as stream:
                return [event.type async for event in stream], await stream.get_final_completion()

        kinds, final = client.runner.run(collect())
    assert final.choices[0].message.content == client.chat(stop=stop).choices[0].message.content
    assert {"chunk", "content.delta", "content.done", "logprobs.content.done"} <= set(kinds)


def test_three_answers(client):
    answer = client.chat(n=3)
    texts = [choice.message.content for choice in answer.choices]
    assert len(set(texts)) > 1 and answer.usage.completion_tokens == 24
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert texts == [client.chat(seed=1 + number).choices[0].message.content for number in range(3)]
    chunks = client.rest(client.chat(n=3, stream=True))
    assert [text(chunks, number) for number in range(3)] == texts
    ends = [c.index for chunk in chunks for c in chunk.choices if c.finish_reason is not None]
    assert sorted(ends) == [0, 1, 2]


def across_a_border(llm, tokens):
    """Return an answer's text and a stop string that begins in one of its tokens and ends in a
    later one."""
    pieces = [piece.text for piece in llm.stream_chat(HI, seed=1, max_tokens=40)]
    whole, at = "".join(pieces), 0
    for number in range(len(pieces) - tokens + 1):
        first, *middle, last = pieces[number : number + tokens]
        stop = first[-1:] + "".join(middle) + last[:1]
        begin = at + len(first) - 1
        if len(first) > 1 and len(last) > 1 and number > 2 and whole.index(stop) == begin:
            return whole, stop
        at += len(first)
    raise AssertionError("the toy says nothing that fits; choose another seed")


@pytest.mark.parametrize("tokens", [2, 3])
def test_a_stop_string_across_borders_of_tokens(live, client, llm, tokens):
    whole, stop = across_a_border(llm, tokens)
    before = whole[: whole.index(stop)]
    answer = client.chat(max_tokens=40, stop=[stop, "never said"])
    assert answer.choices[0].message.content == before and answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens < 40
    chunks = client.rest(client.chat(max_tokens=40, stop=stop, stream=True))
    # No piece of the stop string got out before it was known to be one.
    assert text(chunks) == before
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert live.idle()


def test_log_probabilities(client, llm):
    alone = llm.chat(HI, seed=1, max_tokens=5, logprobs=2)
    asked = {"logprobs": True, "top_logprobs": 2, "max_tokens": 5}
    content = client.chat(**asked).choices[0].logprobs.content
    assert [token.logprob for token in content] == list(alone.logprobs)
    rows = [[t.logprob for t in token.top_logprobs] for token in content]
    assert rows == [[logprob for _, logprob in row] for row in alone.alternatives]
    assert (
        b"".join(bytes(token.bytes) for token in content).decode("utf-8", "replace") == alone.text
    )
    parts = [chunk.choices[0].logprobs for chunk in client.rest(client.chat(**asked, stream=True))]
    assert [token for part in parts if part for token in part.content] == content


def test_seeds(client):
    """The same again, others otherwise; and without one the answer says which it had."""
    texts = {
        seed: client.chat(seed=seed, max_tokens=12).choices[0].message.content for seed in (1, 2, 3)
    }
    assert len(set(texts.values())) == 3
    assert client.chat(seed=2, max_tokens=12).choices[0].message.content == texts[2]
    free = client.chat(seed=None, max_tokens=12)
    again = client.chat(seed=free.griffin["seeds"][0], max_tokens=12)
    assert again.choices[0].message.content == free.choices[0].message.content


def test_completions(client, llm):
    def complete(**fields):
        asked = {"model": NAME, "max_tokens": 6, "seed": 3} | fields
        return client(lambda c: c.completions.create(**asked))

    several = complete(prompt=["def f(", "x"], n=2)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    order = [("def f(", 3), ("def f(", 4), ("x", 3), ("x", 4)]
    for choice, (prompt, seed) in zip(several.choices, order, strict=True):
        assert choice.text == llm.generate(prompt, seed=seed, max_tokens=6).text
    assert (
        complete(prompt=llm.tokenizer.encode("def f(")).choices[0].text == several.choices[0].text
    )
    chunks = client.rest(complete(prompt="def f(", echo=True, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "def f(" + several.choices[0].text
    assert complete(prompt="", max_tokens=2).usage.prompt_tokens == 1
