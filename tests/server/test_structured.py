"""Answers in a form, through the official client: a random model that must keep to it."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Literal

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

from griffin.server import constraints
from tests.support.live_server import NAME

HI = [{"role": "user", "content": "Hi there"}]
TALLY = {
    "type": "object",
    "properties": {"at": {"enum": ["owl", "é"]}, "n": {"$ref": "#/$defs/digit"}},
    "required": ["at", "n"],
    "additionalProperties": False,
    "$defs": {"digit": {"type": "integer", "minimum": 0, "maximum": 9}},
}
LOOK = {"name": "look", "parameters": TALLY}
LOOK_UP = {"name": "look_up"}
TOOLS = [{"type": "function", "function": function} for function in (LOOK, LOOK_UP)]
FLAT = [{"type": "function", **function} for function in (LOOK, LOOK_UP)]
IMPOSSIBLE = {"type": "array", "uniqueItems": True}


class Owl(BaseModel):
    name: str = Field(max_length=8)
    age: int = Field(ge=0, le=99)
    kind: Literal["barn", "eagle"] | None


@pytest.fixture
def saying(llm, monkeypatch):
    """Return a way to make the model want to begin with a text; the constraint still has its
    say."""
    from griffin.engine import core

    wanted: list[int] = []

    class Saying(core.Sampler):
        step = 0

        def sample(self, logits):
            if self.step < len(wanted):
                logits = logits.clone()
                logits[wanted[self.step]] = 1e4
            self.step += 1
            return super().sample(logits)

    monkeypatch.setattr(core, "Sampler", Saying)
    return lambda text: wanted.extend(llm.tokenizer.encode(text, bos=False))


def ask(client, **fields):
    return client.chat.completions.create(
        **{"model": NAME, "messages": HI, "max_tokens": 400, "seed": 1} | fields
    )


def valid(name, arguments):
    made = json.loads(arguments)
    if name == "look_up":
        return made == {}
    return set(made) == {"at", "n"} and made["at"] in ("owl", "é") and 0 <= made["n"] <= 9


def streamed(chunks):
    """Return text, calls and the finish reason of a stream, checking its rules."""
    text, calls, finish = "", [], None
    for chunk in chunks:
        (choice,) = chunk.choices
        text += choice.delta.content or ""
        for delta in choice.delta.tool_calls or []:
            if delta.index == len(calls):
                assert delta.id.startswith("call_") and delta.type == "function"
                calls.append([delta.function.name, ""])
            else:
                assert delta.index == len(calls) - 1 and delta.id is delta.function.name is None
            calls[-1][1] += delta.function.arguments or ""
        finish = choice.finish_reason or finish
    return text, [tuple(call) for call in calls], finish


def whole(choice):
    calls = choice.message.tool_calls or []
    assert len({call.id for call in calls}) == len(calls)
    return (
        choice.message.content or "",
        [(call.function.name, call.function.arguments) for call in calls],
        choice.finish_reason,
    )


def test_parse_gives_what_the_caller_described(client):
    answer = client.chat.completions.parse(
        model=NAME, messages=HI, response_format=Owl, n=2, seed=1, max_tokens=400
    )
    for choice in answer.choices:
        assert isinstance(choice.message.parsed, Owl) and choice.finish_reason == "stop"
    greedy = client.chat.completions.parse(
        model=NAME, messages=HI, response_format=Owl, temperature=0, max_tokens=400
    )
    assert isinstance(greedy.choices[0].message.parsed, Owl)
    response = client.responses.parse(
        model=NAME, input="Hi", text_format=Owl, max_output_tokens=400
    )
    assert isinstance(response.output_parsed, Owl) and response.status == "completed"


def test_streamed_it_is_the_same(client):
    form = {
        "type": "json_schema",
        "json_schema": {"name": "tally", "schema": TALLY, "strict": True},
    }
    answer = ask(client, response_format=form).choices[0]
    assert valid("look", answer.message.content) and answer.finish_reason == "stop"
    assert streamed(ask(client, response_format=form, stream=True)) == whole(answer)


def test_any_object_may_be_cut_short(client):
    answer = ask(client, response_format={"type": "json_object"}, max_tokens=5).choices[0]
    assert answer.message.content.startswith("{")
    if answer.finish_reason == "stop":
        json.loads(answer.message.content)
    else:
        assert answer.finish_reason == "length"
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model=NAME, messages=HI, response_format=Owl, max_tokens=2)


def test_completions_and_text(client):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [1, "é", None]}}}
    answer = client.completions.create(
        model=NAME,
        prompt=["x", "y"],
        max_tokens=40,
        echo=True,
        extra_body={"response_format": form},
    )
    assert all(json.loads(choice.text[1:]) in (1, "é", None) for choice in answer.choices)
    free = ask(client, max_tokens=6).choices[0].message.content
    assert (
        ask(client, max_tokens=6, response_format={"type": "text"}).choices[0].message.content
        == free
    )


def test_in_company_of_the_free(live, llm):
    """An answer in a form and one without are those that they are alone."""
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": TALLY}}

    async def one(client, seed):
        fields = {"response_format": form} if seed % 2 else {}
        answer = await client.chat.completions.create(
            model=NAME, messages=HI, seed=seed, max_tokens=60, **fields
        )
        return answer.choices[0].message.content

    async def together():
        async with AsyncOpenAI(api_key="none", base_url=f"{live.url}/v1", max_retries=8) as client:
            return await asyncio.gather(*(one(client, seed) for seed in range(4)))

    from griffin.grammar import Grammar

    grammars = (None, Grammar.json_schema(TALLY))
    for seed, answer in enumerate(asyncio.run(together())):
        assert answer == llm.chat(HI, seed=seed, max_tokens=60, grammar=grammars[seed % 2]).text


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


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": IMPOSSIBLE},
                }
            },
            "response_format",
        ),
        (
            {
                "tools": [
                    *TOOLS,
                    {"type": "function", "function": {"name": "x", "parameters": IMPOSSIBLE}},
                ],
            },
            "tools[2].function.parameters",
        ),
        (
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "x",
                            "strict": True,
                            "parameters": {"properties": {"a": IMPOSSIBLE}},
                        },
                    }
                ]
            },
            "tools[0].function.parameters",
        ),
        (
            {
                "tools": TOOLS,
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "owl"}},
                },
            },
            "response_format",
        ),
    ],
)
def test_what_cannot_be_held_to_is_refused(live, client, fields, param, stream):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, stream=stream, **fields)
    assert caught.value.param == param and caught.value.code == "invalid_value"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert live.service.engine.stats().busy == 0


def test_the_search_for_what_is_to_blame_ends(client, llm, monkeypatch):
    compiled, compile_ = [], llm.grammars.compile
    monkeypatch.setattr(
        llm.grammars, "compile", lambda grammar: compiled.append(1) or compile_(grammar)
    )
    monkeypatch.setattr(constraints, "_BLAME_SECONDS", 0)
    function = {"name": "x", "strict": True, "parameters": {"properties": {"a": IMPOSSIBLE}}}
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, tools=[{"type": "function", "function": function}, *TOOLS])
    assert caught.value.param == "tools" and len(compiled) == 1


def test_grammars_that_take_their_time_hold_up_no_texts(client, llm, monkeypatch):
    begun, end = [], threading.Event()
    monkeypatch.setattr(llm.grammars, "compile", lambda grammar: begun.append(1) or end.wait(60))
    monkeypatch.setattr(constraints, "_COMPILE_SECONDS", 0.05)
    try:
        for _ in range(3):
            with pytest.raises(openai.APIStatusError, match="not prepared in time"):
                ask(client, response_format={"type": "json_object"})
        long = [{"role": "user", "content": "x " * 2000}]  # it is parsed beside the loop
        assert (
            ask(
                client.with_options(timeout=60), messages=long, max_tokens=2
            ).usage.completion_tokens
            == 2
        )
    finally:
        end.set()
    assert len(begun) == 1  # who waited in vain costs nothing


def test_responses_and_completions_refuse_it_too(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(
            model=NAME,
            input="Hi",
            text={"format": {"type": "json_schema", "name": "x", "schema": IMPOSSIBLE}},
        )
    assert caught.value.param == "text.format"
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": IMPOSSIBLE}}
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=NAME, prompt="x", extra_body={"response_format": form})
    assert caught.value.param == "response_format"


def test_a_tool_that_is_not_strict_may_ask_for_more_than_can_be_held_to(client):
    few = {"type": "array", "uniqueItems": True, "items": {"const": 1}, "maxItems": 2}
    schema = {"properties": {"a": few}}
    tools = [
        {"type": "function", "function": {"name": "x", "parameters": schema | {"required": ["a"]}}}
    ]
    answer = ask(client, tools=tools, tool_choice="required", max_tokens=60, seed=3)
    assert whole(answer.choices[0])[1][0][1].startswith("{")


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_cannot_go_on_is_told(live, client, llm, stream):
    """The grammar is small enough to begin with, and too large a moment later."""
    many = {"type": "object", "properties": {f"k{n}": {"type": "string"} for n in range(1500)}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": many}}
    with pytest.raises(openai.APIError, match="could not be held to its form"):
        list(ask(client, response_format=form, stream=stream))
    assert live.idle()
