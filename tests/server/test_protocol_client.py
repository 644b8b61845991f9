"""The official client parses what the builders write, and sends what the parsers read."""

from __future__ import annotations

import json
from itertools import pairwise

import openai
import pytest
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response
from pydantic import BaseModel

from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.endpoints.chat.body import parse_chat
from griffin.server.endpoints.models.reply import ModelObject
from griffin.server.endpoints.responses.body import parse_response
from griffin.server.errors import ApiError
from griffin.server.protocol.formats import JsonFormat
from tests.support.fake_server import LIMITS, PIECES, FakeServer

HELLO = [{"role": "user", "content": "hello"}]
TEXT = "".join(PIECES)
WEATHER = {
    "name": "weather",
    "description": "Tell the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


class Owl(BaseModel):
    name: str
    age: int


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


def test_a_chat_is_the_clients_own_object(server):
    raw = server.client().chat.completions.with_raw_response.create(
        model="nano", messages=HELLO, n=3
    )
    answer = raw.parse()
    # The client builds its objects without checking them; here they are checked.
    ChatCompletion.model_validate(json.loads(raw.content), strict=True)
    assert answer.id.startswith("chatcmpl-") and answer.system_fingerprint.startswith("fp_")
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {TEXT}
    assert answer.choices[0].finish_reason == "stop" and answer.choices[0].logprobs is None
    assert answer.choices[0].message.tool_calls is None
    used = answer.usage
    assert (used.prompt_tokens, used.completion_tokens, used.total_tokens) == (7, 15, 22)
    assert used.prompt_tokens_details.cached_tokens == 3
    assert answer.model_extra["griffin"] == {"state": "prefix", "seeds": [1]}
    assert answer._request_id == raw.headers["x-request-id"]


def test_a_stream_is_role_pieces_finish_and_no_usage_unasked(server):
    chunks = list(
        server.client().chat.completions.create(model="nano", messages=HELLO, stream=True)
    )
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.model_dump(exclude_unset=True), strict=True)
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert all(
        len(chunk.choices) == 1 and "usage" not in chunk.model_fields_set for chunk in chunks
    )
    first, *middle, last = [chunk.choices[0] for chunk in chunks]
    assert (first.delta.role, first.delta.content, first.finish_reason) == ("assistant", "", None)
    assert [choice.delta.content for choice in middle] == list(PIECES)
    assert all(choice.delta.role is None and choice.finish_reason is None for choice in middle)
    assert last.finish_reason == "stop" and last.delta.model_fields_set == set()


def test_usage_comes_in_a_last_chunk_of_its_own_when_asked(server):
    stream = server.client().chat.completions.create(
        model="nano", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    *before, last = list(stream)
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in before)
    assert last.choices == [] and last.usage.total_tokens == 12
    assert last.model_extra["griffin"]["state_bytes"] == 17_238_016


def test_three_choices_stream_side_by_side(server):
    texts: dict[int, str] = {}
    for chunk in server.client().chat.completions.create(
        model="nano", messages=HELLO, stream=True, n=3
    ):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    assert texts == dict.fromkeys(range(3), TEXT)


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities(server, stream):
    arguments = {
        "model": "nano",
        "messages": HELLO,
        "logprobs": True,
        "top_logprobs": 2,
        "stream": stream,
    }
    answer = server.client().chat.completions.create(**arguments)
    parts = [c.choices[0].logprobs for c in answer] if stream else [answer.choices[0].logprobs]
    tokens = [token for part in parts if part is not None for token in part.content]
    assert [token.token for token in tokens] == list(PIECES)
    assert [bytes(token.bytes).decode() for token in tokens] == list(PIECES)
    assert all(token.logprob == -0.5 and len(token.top_logprobs) == 2 for token in tokens)
    assert server.bodies[0]["top_logprobs"] == 2


def test_parse_gives_a_model_of_the_callers(server):
    server.pieces = ('{"name": "Ug', 'l", "age": 3}')
    answer = server.client().chat.completions.parse(
        model="nano", messages=HELLO, response_format=Owl
    )
    assert answer.choices[0].message.parsed == Owl(name="Ugl", age=3)
    # What the client made of the class is what the parser reads.
    asked = parse_chat(json.dumps(server.bodies[0]).encode(), LIMITS)
    assert isinstance(asked.format, JsonFormat)
    assert asked.format.strict and asked.format.name == "Owl"
    assert asked.format.schema["required"] == ["name", "age"] and asked.ignored == ()


@pytest.mark.parametrize("helper", [False, True])
def test_a_tool_call(server, helper):
    server.call = p.ToolCall("call_1", "weather", '{"city": "Oslo"}')
    tools = [{"type": "function", "function": WEATHER}]
    arguments = {"model": "nano", "messages": HELLO, "tools": tools}
    if helper:
        with server.client().chat.completions.stream(**arguments) as stream:
            call = stream.get_final_completion().choices[0].message.tool_calls[0]
    else:
        answer = server.client().chat.completions.create(**arguments, tool_choice="required")
        assert (
            answer.choices[0].message.content is None
            and answer.choices[0].finish_reason == "tool_calls"
        )
        call = answer.choices[0].message.tool_calls[0]
    assert (call.id, call.type, call.function.name) == ("call_1", "function", "weather")
    assert json.loads(call.function.arguments) == {"city": "Oslo"}


def test_a_call_and_its_result_go_back(server):
    """What the client got, it may send again as it is."""
    server.call = p.ToolCall("call_1", "weather", "{}")
    got = server.client().chat.completions.create(model="nano", messages=HELLO).choices[0].message
    result = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
    server.client().chat.completions.create(model="nano", messages=[*HELLO, got, result])
    asked = parse_chat(json.dumps(server.bodies[1]).encode(), LIMITS)
    assert asked.messages[1] == p.Message("assistant", "", tool_calls=(server.call,))
    assert asked.messages[2] == p.Message("tool", "sunny", tool_call_id="call_1")
    assert asked.ignored == ()


def test_a_completion_with_echo_as_evaluations_read_it(server):
    answer = server.client().completions.create(
        model="nano", prompt=[[1, 2], [3, 4]], max_tokens=1, logprobs=1, echo=True, temperature=0
    )
    assert answer.object == "text_completion" and len(answer.choices) == 2
    choice = answer.choices[1]
    assert (choice.text, choice.index, choice.finish_reason) == ("abcdThe", 1, "length")
    logprobs = choice.logprobs
    assert logprobs.tokens == ["ab", "cd", "The"] and logprobs.text_offset == [0, 2, 4]
    assert logprobs.token_logprobs == [None, -0.5, -0.5] and logprobs.top_logprobs[0] is None
    # A context of one token, a continuation of one, and the generated one left out.
    assert sum(logprobs.token_logprobs[1:-1]) == -0.5
    assert max(logprobs.top_logprobs[1].values()) == logprobs.token_logprobs[1]


def test_a_completion_streams(server):
    chunks = list(
        server.client().completions.create(
            model="nano", prompt="x", stream=True, stream_options={"include_usage": True}
        )
    )
    for chunk in chunks[:-1]:
        assert chunk.usage is None
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == TEXT
    assert (
        chunks[-2].choices[0].finish_reason == "stop" and chunks[-1].usage.completion_tokens == 16
    )


def test_the_reply_structs_are_the_clients_types(server):
    raw = server.client().completions.with_raw_response.create(model="nano", prompt="x")
    Completion.model_validate(json.loads(raw.content), strict=True)
    model = json.loads(p.encode(ModelObject(id="nano", created=1, root="nano")))
    assert "griffin" not in model
    Model.model_validate(model, strict=True)


def test_a_response_and_one_that_follows(server):
    client = server.client()
    raw = client.responses.with_raw_response.create(
        model="nano", input="hello", instructions="Be brief.", metadata={"a": "b"}, temperature=0.5
    )
    Response.model_validate_json(raw.content)  # not strict: created_at is a float there
    first = raw.parse()
    assert (
        first.output_text == TEXT and first.status == "completed" and first.id.startswith("resp_")
    )
    assert (first.temperature, first.metadata, first.instructions) == (0.5, {"a": "b"}, "Be brief.")
    assert first.usage.input_tokens_details.cached_tokens == 3 and first.usage.total_tokens == 14
    second = client.responses.create(model="nano", input="and?", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    asked = parse_response(json.dumps(server.bodies[1]).encode(), LIMITS)
    assert asked.identity({}) == p.Identity("response", first.id, "previous_response_id")
    # Everything that came out may go in again.
    client.responses.create(
        model="nano", input=[*first.output, {"role": "user", "content": "and?"}]
    )
    asked = parse_response(json.dumps(server.bodies[2]).encode(), LIMITS)
    assert asked.input == (p.Message("assistant", TEXT), p.Message("user", "and?"))
    assert asked.ignored == ()


def test_a_response_cut_short_says_so(server):
    answer = server.client().responses.create(model="nano", input="hello", max_output_tokens=5)
    assert answer.status == "incomplete" and answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output[0].status == "incomplete"


def test_a_response_streams_through_the_clients_state_machine(server):
    server.call = p.ToolCall("call_1", "weather", '{"city": "Oslo"}')
    tools = [{"type": "function", **WEATHER, "strict": True}]
    with server.client().responses.stream(
        model="nano",
        input="hello",
        tools=tools,
        top_logprobs=2,
        tool_choice={"type": "function", "name": "weather"},
    ) as stream:
        events = list(stream)
        final = stream.get_final_response()
    numbers = [event.sequence_number for event in events]
    assert numbers[0] == 0 and all(b == a + 1 for a, b in pairwise(numbers))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == TEXT
    assert [e.snapshot for e in events if e.type == "response.output_text.delta"][-1] == TEXT
    assert final.output_text == TEXT and final.output[1].parsed_arguments == {"city": "Oslo"}
    assert final.output[0].content[0].logprobs[0].top_logprobs[1].token == " other"
    assert final.tool_choice.name == "weather" and final.tools[0].strict


def test_a_response_is_parsed_into_a_model_of_the_callers(server):
    server.pieces = ('{"name": "Ugl", ', '"age": 3}')
    answer = server.client().responses.parse(model="nano", input="hello", text_format=Owl)
    assert answer.output_parsed == Owl(name="Ugl", age=3)
    asked = parse_response(json.dumps(server.bodies[0]).encode(), LIMITS)
    assert isinstance(asked.format, JsonFormat)
    assert asked.format.name == "Owl" and asked.format.strict


def test_a_failed_response_says_so(server):
    server.break_after = 2
    events = list(server.client().responses.create(model="nano", input="hello", stream=True))
    assert events[-1].type == "response.failed"
    assert (
        events[-1].response.error.code == "server_error"
        and "req_1" in events[-1].response.error.message
    )


def test_an_error_in_mid_stream_is_raised(server):
    server.break_after = 2
    text = ""
    with pytest.raises(openai.APIError, match="its log has more under req_1") as caught:
        for chunk in server.client().chat.completions.create(
            model="nano", messages=HELLO, stream=True
        ):
            text += chunk.choices[0].delta.content
    assert text == "The owl" and caught.value.type == "server_error"


CLASSES = {
    errors.INVALID: openai.BadRequestError,
    errors.BAD_KEY: openai.AuthenticationError,
    errors.FORBIDDEN: openai.PermissionDeniedError,
    errors.NO_MODEL: openai.NotFoundError,
    errors.MISMATCH: openai.ConflictError,
    errors.BUSY: openai.ConflictError,
    errors.IMPOSSIBLE: openai.UnprocessableEntityError,
    errors.QUEUE_FULL: openai.RateLimitError,
    errors.BUG: openai.InternalServerError,
    errors.NOT_READY: openai.InternalServerError,
    errors.TIMEOUT: openai.InternalServerError,
    errors.STORAGE_FULL: openai.InternalServerError,
}


@pytest.mark.parametrize("case", CLASSES, ids=lambda case: case.code or "bug")
def test_every_failure_is_the_clients_class_and_is_tried_again_only_where_it_helps(
    server, case, monkeypatch
):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server.problem = ApiError(case, "no, because", "messages[2].content", retry_after=0.001)
    with pytest.raises(CLASSES[case]) as caught:
        server.client(max_retries=2).chat.completions.create(model="nano", messages=HELLO)
    error = caught.value
    assert (error.status_code, error.type, error.code) == (case.status, case.type, case.code)
    assert error.param == "messages[2].content" and error.body["message"] == "no, because"
    assert error.request_id.startswith("req_")
    assert len(server.bodies) == (1 if case.retry is False else 3)


def test_a_wrong_request_keeps_its_path(server):
    with pytest.raises(openai.BadRequestError) as caught:
        server.client().chat.completions.create(model="nano", messages=[*HELLO, {"role": "user"}])
    assert caught.value.param == "messages[1].content" and len(server.bodies) == 1


def test_an_unknown_model(server):
    with pytest.raises(openai.NotFoundError, match="lists nano") as caught:
        server.client().chat.completions.create(model="gpt-9", messages=HELLO)
    assert caught.value.code == "model_not_found" and caught.value.param == "model"


def test_fields_that_were_passed_over_are_named(server):
    raw = server.client().chat.completions.with_raw_response.create(
        model="nano", messages=HELLO, user="u", extra_body={"top_b": 1, "x\r\ny: z": 2}
    )
    assert raw.headers["x-griffin-ignored"] == "top_b, x??y??z"
