"""Tools through the official client: a random model that must call them as they are described."""

from __future__ import annotations

import json

import openai
import pytest

from tests.support.live_server import NAME
from tests.support.tool_calls import (
    FLAT,
    HI,
    TOOLS,
    ask,
    streamed,
    valid,
    whole,
)


@pytest.mark.parametrize("several", [True, False])
def test_a_call_that_must_be(client, several):
    fields = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": several}
    text, calls, finish = said = whole(ask(client, **fields).choices[0])
    assert text == "" and calls and all(valid(*call) for call in calls) and finish == "tool_calls"
    assert several or len(calls) == 1
    assert streamed(ask(client, stream=True, **fields)) == said


def test_the_function_that_must_be_called(client):
    for name in ("look", "look_up"):
        chosen = {"type": "function", "function": {"name": name}}
        _, ((called, arguments),), finish = whole(
            ask(client, tools=TOOLS, tool_choice=chosen).choices[0]
        )
        assert called == name and valid(name, arguments) and finish == "tool_calls"


def test_several_calls_follow_each_other(client, saying):
    saying('<tool_call>{"name": "look_up", "arguments": {}}</tool_call>\n')
    said = whole(ask(client, tools=TOOLS).choices[0])
    assert len(said[1]) >= 2 and all(valid(*call) for call in said[1]) and said[2] == "tool_calls"
    assert streamed(ask(client, tools=TOOLS, stream=True)) == said
    alone = whole(ask(client, tools=TOOLS, parallel_tool_calls=False).choices[0])
    assert alone == ("", [("look_up", "{}")], "tool_calls")


@pytest.mark.parametrize("stream", [True, False])
def test_what_begins_as_a_call_becomes_one(client, saying, stream):
    saying("Let me see.\n<tool_call> no, I would rather not")
    answer = ask(client, tools=TOOLS, stream=stream, logprobs=True, parallel_tool_calls=False)
    if stream:
        chunks = list(answer)
        text, calls, finish = streamed(chunks)
        tokens = [t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    else:
        text, calls, finish = whole(answer.choices[0])
        tokens = answer.choices[0].logprobs.content
    assert text == "Let me see." and len(calls) == 1 and valid(*calls[0]) and finish == "tool_calls"
    assert "".join(token.token for token in tokens).startswith("Let me see.")
    assert "tool_call>" not in "".join(token.token for token in tokens)


def test_a_model_that_need_not_call_says_what_it_likes(client, llm):
    free = ask(client, tools=TOOLS, max_tokens=30, logprobs=True)
    text, calls, finish = whole(free.choices[0])
    assert text and not calls and finish == "length"
    assert len(free.choices[0].logprobs.content) == 30
    chunks = list(ask(client, tools=TOOLS, max_tokens=30, logprobs=True, stream=True))
    assert streamed(chunks) == (text, [], "length")
    tokens = [t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    assert tokens == free.choices[0].logprobs.content


def test_who_may_not_call_is_told_of_the_tools_and_calls_nothing(client, saying):
    """So an agent's last step goes on from what was read before it."""
    told = ask(client, tools=TOOLS, max_tokens=5)
    none = ask(client, tools=TOOLS, max_tokens=5, tool_choice="none")
    assert none.usage.prompt_tokens == told.usage.prompt_tokens
    assert none.usage.prompt_tokens_details.cached_tokens >= told.usage.prompt_tokens - 64
    saying("Let me see.\n<tool_call>")
    text, calls, _ = whole(ask(client, tools=TOOLS, max_tokens=40, tool_choice="none").choices[0])
    assert text.startswith("Let me see.\n<tool_call") and "<tool_call>" not in text and not calls


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_a_call_of_nothing_is_refused(client, choice):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, tool_choice=choice)
    assert caught.value.param == "tool_choice"


def test_a_call_that_is_cut_short(client, saying):
    saying('<tool_call>{"name": "look", "arguments": {"at": "owl",')
    for count in (12, 40):
        said = whole(ask(client, tools=TOOLS, max_tokens=count).choices[0])
        assert said[2] == (
            "length" if not said[1] or not said[1][0][1].endswith("}") else "tool_calls"
        )
        assert streamed(ask(client, tools=TOOLS, max_tokens=count, stream=True)) == said


def test_json_or_a_call(client, saying):
    """With a form and tools an answer is one or the other."""
    form = {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {"const": {"say": "<tool_call>"}}},
    }
    fields = {"tools": TOOLS, "response_format": form}
    saying("{")
    text, calls, finish = said = whole(ask(client, **fields).choices[0])
    assert json.loads(text) == {"say": "<tool_call>"} and not calls and finish == "stop"
    assert streamed(ask(client, stream=True, **fields)) == said


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "look"}])
def test_responses_call(client, choice):
    fields = {"model": NAME, "input": "Hi", "tools": FLAT, "tool_choice": choice, "store": False}
    fields |= {"max_output_tokens": 400, "extra_body": {"seed": 1}}
    answer = client.responses.create(**fields)
    calls = [(item.name, item.arguments) for item in answer.output]
    assert calls and all(valid(*call) for call in calls) and answer.status == "completed"
    last = list(client.responses.create(stream=True, **fields))[-1]
    assert last.type == "response.completed"
    assert [(item.name, item.arguments) for item in last.response.output] == calls


@pytest.mark.parametrize("stream", [True, False])
def test_responses_say_something_and_call(client, saying, stream):
    saying("Let me see.\n<tool_call>")
    fields = {
        "model": NAME,
        "input": "Hi",
        "tools": FLAT,
        "store": False,
        "parallel_tool_calls": False,
    }
    answer = client.responses.create(stream=stream, max_output_tokens=400, **fields)
    if stream:
        answer = list(answer)[-1].response
    message, call = answer.output
    assert message.content[0].text == "Let me see." and valid(call.name, call.arguments)
    assert message.status == call.status == "completed"


def test_a_conversation_goes_on_behind_a_call(client):
    """What the client sends back is what the model said: the session knows it, and reads only what
    is new."""
    extra = {"extra_headers": {"x-griffin-session": "calls"}}
    first = ask(client, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, **extra)
    message = first.choices[0].message
    (call,) = message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "an owl"}
    said = [*HI, message.model_dump(exclude_none=True), result]
    second = ask(client, messages=said, tools=TOOLS, max_tokens=5, **extra)
    assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.total_tokens - 1


def test_a_tool_that_is_not_strict_may_ask_for_more_than_can_be_held_to(client):
    few = {"type": "array", "uniqueItems": True, "items": {"const": 1}, "maxItems": 2}
    schema = {"properties": {"a": few}}
    tools = [
        {"type": "function", "function": {"name": "x", "parameters": schema | {"required": ["a"]}}}
    ]
    answer = ask(client, tools=tools, tool_choice="required", max_tokens=60, seed=3)
    assert whole(answer.choices[0])[1][0][1].startswith("{")
