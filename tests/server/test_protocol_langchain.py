"""LangChain's client over the protocol: what it asks for by itself is read, and none of it passed
over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from griffin.server import protocol as p
from griffin.server.endpoints.chat.body import parse_chat
from griffin.server.endpoints.responses.body import parse_response
from tests.support.fake_server import LIMITS, PIECES, FakeServer

TEXT = "".join(PIECES)


class Owl(BaseModel):
    """An owl."""

    name: str
    age: int


UGL = Owl(name="Ugl", age=3)


@pytest.fixture
def server():
    server = FakeServer()
    yield server
    for body in server.bodies:
        parse = parse_response if "input" in body else parse_chat
        assert parse(json.dumps(body).encode(), LIMITS).ignored == ()


def model(server: FakeServer, **options: Any) -> ChatOpenAI:
    http = httpx2.Client(transport=httpx2.MockTransport(server.handle))
    return ChatOpenAI(
        model="nano", api_key="key", base_url="http://griffin.test/v1", http_client=http, **options
    )


def test_invoke_and_stream(server):
    answer = model(server, max_tokens=50).invoke([("system", "be brief"), ("human", "hi")])
    assert (
        answer.content == TEXT and answer.usage_metadata["input_token_details"]["cache_read"] == 3
    )
    assert server.bodies[0]["max_completion_tokens"] == 50
    assert "".join(chunk.text for chunk in model(server).stream("hi")) == TEXT


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(server, method):
    server.pieces = (UGL.model_dump_json(),)
    if method == "function_calling":
        server.call = p.ToolCall("call_1", "Owl", UGL.model_dump_json())
    assert model(server).with_structured_output(Owl, method=method).invoke("an owl") == UGL


def test_tools_that_must_be_called(server):
    server.call = p.ToolCall("call_1", "Owl", UGL.model_dump_json())
    bound = model(server).bind_tools([Owl], tool_choice="any", parallel_tool_calls=False)
    assert bound.invoke("an owl").tool_calls[0]["args"] == UGL.model_dump()
    chunks: Iterator[Any] = bound.stream("an owl")
    first, *rest = chunks
    for chunk in rest:
        first += chunk
    assert first.tool_calls[0]["args"] == UGL.model_dump()


def test_responses(server):
    answer = model(server, use_responses_api=True).invoke("hi")
    assert answer.text == TEXT and answer.usage_metadata["total_tokens"] == 14
    assert (
        "".join(chunk.text for chunk in model(server, use_responses_api=True).stream("hi")) == TEXT
    )
