"""LangChain's client before a live server."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI

from tests.support.live_server import NAME, endless

SAID = [SystemMessage("be brief"), HumanMessage("Hi there")]
PLAIN = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "Hi there"}]


@pytest.fixture(scope="module")
def run():
    """Return what runs coroutines, all on one loop: LangChain keeps its connections from call to
    call."""
    with asyncio.Runner() as runner:
        yield runner.run


def model(live, **options):
    options = {"max_tokens": 8, "seed": 1} | options
    return ChatOpenAI(
        model=NAME, api_key="none", base_url=f"{live.url}/v1", max_retries=0, **options
    )


def test_invoke(live, llm, run):
    alone = llm.chat(PLAIN, seed=1, max_tokens=8)
    answer = model(live).invoke(SAID)
    assert answer.content == alone.text and answer.response_metadata["finish_reason"] == "length"
    used = answer.usage_metadata
    assert (used["input_tokens"], used["output_tokens"]) == (alone.prompt_tokens, 8)
    assert run(model(live).ainvoke(SAID)).content == alone.text


def test_stream(live, llm, run):
    alone = llm.chat(PLAIN, seed=1, max_tokens=8)
    first, *rest = model(live, stream_usage=True).stream(SAID)
    for chunk in rest:
        first += chunk
    assert (
        len(rest) > 1 and first.content == alone.text and first.usage_metadata["output_tokens"] == 8
    )

    async def collect():
        return "".join([chunk.text async for chunk in model(live).astream(SAID)])

    assert run(collect()) == alone.text


def test_a_conversation_goes_on(live, llm):
    """What a chain hands back and forth is a conversation like any other."""
    answer = model(live).invoke(SAID)
    again = model(live).invoke([*SAID, AIMessage(answer.content), HumanMessage("and?")])
    said = [
        *PLAIN,
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": "and?"},
    ]
    assert again.content == llm.chat(said, seed=1, max_tokens=8).text
    assert again.usage_metadata["input_token_details"]["cache_read"] > 0


def test_several_at_once(live, llm, run):
    asked = [f"number {n}" for n in range(6)]
    alone = [llm.chat([{"role": "user", "content": a}], seed=1, max_tokens=8).text for a in asked]
    assert [answer.content for answer in model(live).batch(asked)] == alone
    assert [answer.content for answer in run(model(live).abatch(asked))] == alone
    found = model(live, n=3).generate([[HumanMessage("Hi there")]]).generations[0]
    hi = [{"role": "user", "content": "Hi there"}]
    assert [one.text for one in found] == [
        llm.chat(hi, seed=1 + n, max_tokens=8).text for n in range(3)
    ]


def test_stop_and_log_probabilities(live, llm):
    whole = llm.chat(PLAIN, seed=1, max_tokens=40).text
    stop = whole[5:8]
    assert (
        model(live, max_tokens=40).invoke(SAID, stop=[stop]).content == whole[: whole.index(stop)]
    )
    bound = model(live, logprobs=True, top_logprobs=2)
    content = bound.invoke(SAID).response_metadata["logprobs"]["content"]
    alone = llm.chat(PLAIN, seed=1, max_tokens=8, logprobs=2)
    assert [token["logprob"] for token in content] == list(alone.logprobs)


def test_plain_completions(live, llm):
    plain = OpenAI(
        model=NAME, api_key="none", base_url=f"{live.url}/v1", max_retries=0, max_tokens=8, seed=1
    )
    alone = llm.generate("def f(", seed=1, max_tokens=8, temperature=0.7).text  # its own default
    assert plain.invoke("def f(") == alone and "".join(plain.stream("def f(")) == alone


def test_responses_follow_one_another(live):
    """With use_previous_response_id only what is new travels."""
    bound = model(
        live, use_responses_api=True, use_previous_response_id=True, seed=None, temperature=0
    )
    first = bound.invoke([HumanMessage("one")])
    second = bound.invoke([HumanMessage("one"), first, HumanMessage("two")])
    assert second.text and second.usage_metadata["input_token_details"]["cache_read"] > 0
    assert first.response_metadata["id"] != second.response_metadata["id"]


def test_errors_come_through(live, llm):
    with pytest.raises(openai.NotFoundError):
        ChatOpenAI(model="gpt-9", api_key="none", base_url=f"{live.url}/v1", max_retries=0).invoke(
            "x"
        )
    with pytest.raises(openai.BadRequestError):
        model(live, temperature=-1).invoke("x")
    stream: Any = model(live, max_tokens=20_000, **endless(llm)).stream("x")
    next(stream)
    stream.close()
    assert live.idle()
