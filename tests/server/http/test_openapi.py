"""The published document: whole, true to the limits, and what goes over the wire fits it."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
import schemathesis

from griffin.server import protocol as p
from griffin.server.endpoints import OPERATIONS
from griffin.server.endpoints.chat.reply import ChatChunks
from griffin.server.endpoints.server.reply import ServerObject, SlotCounts, limits_object
from griffin.server.errors import CASES, INVALID, ApiError
from griffin.server.http.openapi import openapi
from griffin.server.limits import Limits
from tests.server.test_protocol_fuzz import RICH
from tests.support.fake_server import FakeServer, scored
from tests.support.request_bodies import PARSERS

DOCUMENT = openapi()
HEAD = p.Head("x-1", 12, "nano", "fp_1")
BODIES = {
    "chat": "ChatBody",
    "completion": "CompletionBody",
    "response": "ResponseBody",
    "message": "MessagesBody",
    "embedding": "EmbeddingsBody",
    "ollama": "OllamaChatBody",
    "generate": "GenerateBody",
    "show": "ShowBody",
    "embed": "EmbedBody",
    "embed_prompt": "EmbedPromptBody",
    "session": "SessionCreate",
    "change": "SessionChange",
    "fork": "Fork",
    "rewind": "Rewind",
    "append": "AppendBody",
    "state": "StateBody",
    "tokenize": "TokenizeBody",
    "detokenize": "DetokenizeBody",
    "template": "TemplateBody",
}


def validator(name: str) -> Any:
    return jsonschema_rs.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    )


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(inner) for inner in value.values()))
    return (
        set().union(*(references(inner) for inner in value)) if isinstance(value, list) else set()
    )


def test_the_document_is_whole():
    schemas = DOCUMENT["components"]["schemas"]
    assert references(DOCUMENT) == {f"#/components/schemas/{name}" for name in schemas}
    for name in schemas:
        validator(name)
    ids = [
        operation["operationId"]
        for path in DOCUMENT["paths"].values()
        for operation in path.values()
    ]
    assert len(ids) == len(set(ids)) == len(OPERATIONS)
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT


@pytest.mark.thorough
def test_another_program_reads_it():
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    results: list[Any] = list(schema.get_all_operations())
    found = {(result.ok().method.upper(), result.ok().path) for result in results}
    assert found == {(operation.method, operation.path) for operation in OPERATIONS}


def test_every_failure_is_declared_somewhere_and_none_that_cannot_be():
    declared = {case for operation in OPERATIONS for case in operation.cases}
    undeclared = {case.code for case in CASES} - {case.code for case in declared}
    # Those any request can have, and those about requests that have no operation.
    assert undeclared <= {
        *("invalid_api_key", "forbidden", "too_many_requests", "not_ready", None),
        *(
            "not_found",
            "method_not_allowed",
        ),
    }


def test_the_limits_are_the_servers():
    mine = openapi(Limits(max_choices=3, max_tokens=7, default_max_tokens=7, max_stop=2), "9")
    chat = mine["components"]["schemas"]["ChatBody"]["properties"]
    assert chat["n"]["anyOf"][0]["maximum"] == 3
    assert chat["max_tokens"]["anyOf"][0]["maximum"] > 7  # more is clamped, not refused
    assert [m["maxItems"] for m in chat["stop"]["anyOf"] if m["type"] == "array"] == [2]
    assert (
        DOCUMENT["components"]["schemas"]["ChatBody"]["properties"]["n"]["anyOf"][0]["maximum"]
        == 16
    )
    assert mine["info"]["version"] == "9"


@pytest.mark.parametrize("kind", BODIES)
def test_bodies_that_are_read_fit_their_schemas(kind):
    check = validator(BODIES[kind])
    check.validate(RICH[kind])
    check.validate(PARSERS[kind][1])


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("ChatBody", {"messages": []}),
        ("ChatBody", {"messages": [{"role": "owl"}]}),
        ("ChatBody", {"messages": [{"role": "user"}], "n": 17}),
        ("ChatBody", {"messages": [{"role": "user"}], "session_id": "a/b"}),
        ("ChatBody", {"messages": [{"role": "user"}], "session_id": "a\n"}),
        ("CompletionBody", {"prompt": [1.5]}),
        ("Rewind", {"turns": 0}),
    ],
)
def test_bodies_that_are_wrong_do_not(name, body):
    assert not validator(name).is_valid(body)


def test_replies_fit_their_schemas():
    server = FakeServer()
    client = server.client()
    arguments: dict[str, Any] = {"model": "nano", "messages": [{"role": "user", "content": "x"}]}
    chat = client.chat.completions.with_raw_response.create(
        **arguments, logprobs=True, top_logprobs=1
    )
    validator("ChatCompletion").validate(json.loads(chat.content))
    text = client.completions.with_raw_response.create(
        model="nano", prompt="x", echo=True, logprobs=1
    )
    validator("Completion").validate(json.loads(text.content))
    response = client.responses.with_raw_response.create(
        model="nano", input="x", metadata={"a": "b"}
    )
    validator("ResponseObject").validate(json.loads(response.content))
    chunks = ChatChunks(HEAD, include_usage=True)
    for chunk in (
        *(chunks.role(), chunks.text("x", [scored("x")]), chunks.finish("stop")),
        *(chunks.call_begin(0, "c", "f"), chunks.call_more(0, "{}")),
        chunks.usage(p.usage(1, 1), p.Extras(state="none", tokens_per_second=1.5)),
    ):
        validator("ChatChunk").validate(json.loads(p.encode(chunk)))
    validator("ErrorBody").validate(json.loads(ApiError(INVALID, "why").body()))
    slots = SlotCounts(total=4, busy=1)
    served = ServerObject(
        version="1",
        model="nano",
        system_fingerprint="fp_1",
        slots=slots,
        waiting=0,
        running=1,
        paused=0,
        bytes={"weights": 5},
        uptime_seconds=1.5,
        limits=limits_object(Limits()),
    )
    validator("ServerObject").validate(json.loads(p.encode(served)))
