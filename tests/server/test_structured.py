"""Answers in a form, through the official client: a random model that must keep to it."""

from __future__ import annotations

import asyncio
import json
import threading

import openai
import pytest
from openai import AsyncOpenAI

from griffin.server import constraints
from tests.support.live_server import NAME
from tests.support.tool_calls import (
    HI,
    IMPOSSIBLE,
    TALLY,
    TOOLS,
    Owl,
    ask,
    streamed,
    valid,
    whole,
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


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": IMPOSSIBLE, "strict": True},
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
                    "json_schema": {"name": "x", "schema": {"type": "owl"}, "strict": True},
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
    compiled = []

    def too_complex(grammar):
        compiled.append(grammar)
        raise ValueError("the grammar is too complex")

    monkeypatch.setattr(llm.grammars, "compile", too_complex)
    monkeypatch.setattr(constraints, "_BLAME_SECONDS", 0)
    function = {"name": "x", "strict": True, "parameters": TALLY}
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, tools=[{"type": "function", "function": function}, *TOOLS])
    assert caught.value.param == "tools" and len(compiled) == 1


def test_a_tool_that_is_too_much_alone_is_called_freely(client, llm, monkeypatch):
    """Unless all of it must be held to."""
    compile_ = llm.grammars.compile

    def limited(grammar):
        if '"owl"' in grammar.text:  # in a grammar's text, TALLY is the one with an owl
            raise ValueError("the grammar is too complex")
        return compile_(grammar)

    monkeypatch.setattr(llm.grammars, "compile", limited)
    fields = {"tools": TOOLS, "tool_choice": "required", "model": NAME, "messages": HI}
    raw = client.chat.completions.with_raw_response.create(**fields, max_tokens=60, seed=1)
    assert raw.headers["x-griffin-ignored"] == "tools[0].function.parameters"
    strict = [{"type": "function", "function": {**TOOLS[0]["function"], "strict": True}}]
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, tools=strict, tool_choice="required")
    assert caught.value.param == "tools[0].function.parameters"


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
            text={
                "format": {
                    "type": "json_schema",
                    "name": "x",
                    "schema": IMPOSSIBLE,
                    "strict": True,
                }
            },
        )
    assert caught.value.param == "text.format"
    form = {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": IMPOSSIBLE, "strict": True},
    }
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=NAME, prompt="x", extra_body={"response_format": form})
    assert caught.value.param == "response_format"


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_cannot_go_on_is_told(live, client, llm, stream):
    """The grammar is small enough to begin with, and too large a moment later."""
    many = {"type": "object", "properties": {f"k{n}": {"type": "string"} for n in range(1500)}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": many}}
    with pytest.raises(openai.APIError, match="could not be held to its form"):
        list(ask(client, response_format=form, stream=stream))
    assert live.idle()
