"""Schemas that clients send, at a live server: what is not held to is named, or refused."""

from __future__ import annotations

import ipaddress
import json
import pathlib
from typing import Any

import jsonschema_rs
import openai
import pytest
from pydantic import Base64Bytes, BaseModel, SecretStr

from tests.support.live_server import NAME
from tests.support.tool_calls import HI, TALLY, ask, valid


class Sent(BaseModel):
    path: pathlib.Path
    secret: SecretStr
    raw: bytes
    coded: Base64Bytes
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    tags: set[bool]


AHEAD = {"type": "string", "pattern": "^(?=a)b", "maxLength": 3}
BAD_PARTS = {
    "a look-ahead": ({"properties": {"a": AHEAD}}, "properties.a.pattern"),
    "any": ({"properties": {"a": {"type": "any", "maxLength": 3}}}, "properties.a.type"),
    "any at the top": ({"type": "any", "properties": {"a": {"const": 1}}}, "type"),
    "an external $ref": (
        {"properties": {"a": {"$ref": "https://example.org/s.json"}}},
        "properties.a.$ref",
    ),
    "an overlap": (
        {"properties": {"a": {"oneOf": [{"const": 1}, {"enum": [1, 2]}]}}},
        "properties.a.oneOf",
    ),
    "uniqueItems": (
        {
            "properties": {
                "a": {
                    "type": "array",
                    "uniqueItems": True,
                    "items": {"type": "null"},
                    "maxItems": 2,
                }
            }
        },
        "properties.a.uniqueItems",
    ),
    "nothing fits": ({"properties": {"a": False}, "required": ["a"]}, ""),
}


def form(schema: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, **fields}}


def named(raw: Any) -> list[str]:
    return [name for name in raw.headers.get("x-griffin-ignored", "").split(", ") if name]


def asking(client: Any, **fields: Any) -> Any:
    return client.chat.completions.with_raw_response.create(
        **{"model": NAME, "messages": HI, "max_tokens": 400, "seed": 1} | fields
    )


def test_models_of_pydantic(client):
    schema = Sent.model_json_schema()
    raw = asking(client, response_format=form(schema), temperature=0)
    place = "response_format.json_schema.schema.properties"
    assert {f"{place}.path.format", f"{place}.tags.uniqueItems"} <= set(named(raw))
    assert not [name for name in named(raw) if not name.startswith(place)]
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, response_format=form(schema, strict=True))
    assert caught.value.param == "response_format" and "properties.path.format" in str(caught.value)


@pytest.mark.sweep
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("part", BAD_PARTS)
def test_one_tool_does_not_end_a_request_with_others(client, part, stream):
    schema, place = BAD_PARTS[part]
    tools = [
        {"type": "function", "function": {"name": "look", "parameters": TALLY}},
        {"type": "function", "function": {"name": "odd", "parameters": schema}},
    ]
    raw = asking(client, tools=tools, tool_choice="required", stream=stream)
    where = "tools[1].function.parameters"
    assert named(raw) == [f"{where}.{place}" if place else where]
    if not stream:
        chosen = {"type": "function", "function": {"name": "look"}}
        (call,) = ask(client, tools=tools, tool_choice=chosen).choices[0].message.tool_calls
        assert valid(call.function.name, call.function.arguments)
    tools[1]["function"]["strict"] = True
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, tools=tools)
    assert caught.value.param == where


def test_a_response_and_a_completion_name_it_too(client):
    schema = {"type": "array", "uniqueItems": True, "items": {"const": 1}, "maxItems": 2}
    raw = client.responses.with_raw_response.create(
        model=NAME,
        input="Hi",
        text={"format": {"type": "json_schema", "name": "x", "schema": schema}},
        tools=[{"type": "function", "name": "f", "parameters": {"properties": {"a": AHEAD}}}],
        max_output_tokens=60,
    )
    assert named(raw) == [
        "text.format.schema.uniqueItems",
        "tools[0].parameters.properties.a.pattern",
    ]
    raw = client.completions.with_raw_response.create(
        model=NAME,
        prompt="x",
        max_tokens=60,
        extra_body={"response_format": {"type": "json_object", "schema": schema}, "n_predict": 60},
    )
    assert named(raw) == ["response_format.schema.uniqueItems"]
    assert set(json.loads(raw.parse().choices[0].text)) <= {1}


@pytest.mark.parametrize("strict", [True, False])
def test_objects_end(client, strict):
    """A schema that does not say so has no more names than it declares: short answers."""
    schema = {
        "type": "object",
        "properties": {"result": {"type": "integer", "maximum": 9, "minimum": 0}},
        "required": ["result"],
    }
    for seed in range(6):
        answer = ask(
            client, response_format=form(schema, strict=strict), seed=seed, max_tokens=60
        ).choices[0]
        assert answer.finish_reason == "stop"
        assert set(json.loads(answer.message.content)) == {"result"}
        jsonschema_rs.validate(schema, json.loads(answer.message.content))


def test_a_schema_in_llama_cpps_place_is_held_to(client):
    answer = ask(client, response_format={"type": "json_object", "schema": TALLY}).choices[0]
    assert valid("look", answer.message.content)


def test_numbers_with_a_point_in_a_tool(client):
    schema = {
        "type": "object",
        "properties": {"s": {"type": "string", "minLength": 1.0, "maxLength": 2.0}},
        "required": ["s"],
    }
    tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": schema}}
    answer = ask(client, tools=[tool], tool_choice="required", n=1, parallel_tool_calls=False)
    (call,) = answer.choices[0].message.tool_calls
    assert 1 <= len(json.loads(call.function.arguments)["s"]) <= 2


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "Be an owl."}],
        [{"role": "developer", "content": "Be an owl."}],
        [{"role": "assistant", "content": "Who?"}, *HI],
        [
            {"role": "system", "content": "Be an owl."},
            {"role": "assistant", "content": "Who?"},
            *HI,
        ],
    ],
)
def test_conversations_that_others_begin(client, llm, messages):
    answer = ask(client, messages=messages, max_tokens=8).choices[0]
    assert answer.finish_reason in ("stop", "length")
    plain = [{**one, "role": one["role"].replace("developer", "system")} for one in messages]
    assert answer.message.content == llm.chat(plain, seed=1, max_tokens=8).text
    more = [*messages, {"role": "assistant", "content": answer.message.content or "."}, *HI]
    ask(client, messages=more, max_tokens=4)
    stored = ask(
        client, messages=messages, max_tokens=8, extra_body={"session_id": f"s{id(messages)}"}
    )
    assert stored.choices[0].message.content == answer.message.content
    response = client.responses.create(model=NAME, input=messages, max_output_tokens=4)
    assert response.output
