"""What the builders write where the client's own objects do not tell."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from griffin.server import protocol as p
from griffin.server.endpoints.chat.reply import ChatAnswer, ChatChunks, chat_completion
from griffin.server.endpoints.completions.reply import completion_logprobs
from griffin.server.endpoints.responses.body import parse_response
from griffin.server.endpoints.responses.stream import ResponseStream
from griffin.server.endpoints.server.reply import limits_object
from griffin.server.endpoints.sessions.reply import SessionObject, session_list
from griffin.server.endpoints.states.reply import state_list
from griffin.server.endpoints.tokens.reply import tokens
from griffin.server.errors import ApiError
from griffin.server.limits import Limits
from griffin.server.protocol.reply import clamp, token_logprobs

HEAD = p.Head("chatcmpl-1", 12, "nano", "fp_1")
REQUEST = parse_response(b'{"input": "x"}', Limits())


def plain(value: object) -> Any:
    return json.loads(p.encode(value))


@pytest.mark.parametrize("value", [-math.inf, math.nan, -1e30, None])
def test_numbers_that_json_has_not_are_clamped(value):
    assert clamp(value) == -9999.0
    token = p.Scored("a", b"a", value, [p.Candidate("b", b"b", value)] if value is not None else [])
    shown = plain(token_logprobs([token]))
    assert shown[0]["logprob"] == -9999.0
    assert all(top["logprob"] == -9999.0 for top in shown[0]["top_logprobs"])


def test_probabilities_are_never_above_one():
    assert clamp(1e-7) == 0.0 and clamp(-0.25) == -0.25


def test_a_token_that_is_half_a_character():
    half = p.Scored("\ufffd", b"\xf0\x9f", -1.0, [p.Candidate("\ufffd", b"\xf0\x9f", -1.0)])
    assert plain(token_logprobs([half]))[0]["bytes"] == [0xF0, 0x9F]
    legacy = completion_logprobs([half])
    assert legacy.tokens == ["bytes:\\xf0\\x9f"] and legacy.top_logprobs == [
        {"bytes:\\xf0\\x9f": -1.0}
    ]
    # One that really is U+FFFD stays it.
    real = p.Scored("\ufffd", "\ufffd".encode(), -1.0)
    assert completion_logprobs([real]).tokens == ["\ufffd"]


def test_tokens_that_look_alike_keep_the_greater_number():
    alike = [
        p.Candidate("a", b"a", -3.0),
        p.Candidate("a", b"a", -1.0),
        p.Candidate("a", b"a", -2.0),
    ]
    assert completion_logprobs([p.Scored("b", b"b", -4.0, alike)]).top_logprobs == [
        {"a": -1.0, "b": -4.0}
    ]


def test_what_is_not_there_is_left_out_and_what_is_null_is_null():
    chunks = ChatChunks(HEAD, include_usage=False)
    assert plain(chunks.text("x")) == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 12,
        "model": "nano",
        "system_fingerprint": "fp_1",
        "choices": [
            {"index": 0, "delta": {"content": "x"}, "logprobs": None, "finish_reason": None}
        ],
    }
    assert plain(ChatChunks(HEAD, True).finish("length"))["usage"] is None
    more = plain(chunks.call_more(1, "{", index=2))["choices"][0]
    assert more["index"] == 2 and more["delta"] == {
        "tool_calls": [{"index": 1, "function": {"arguments": "{"}}]
    }
    begin = plain(chunks.call_begin(0, "call_1", "f"))["choices"][0]["delta"]["tool_calls"]
    assert begin == [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    ]
    answer = plain(
        chat_completion(HEAD, [ChatAnswer(text="x", finish_reason="stop")], p.usage(1, 1))
    )
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "x", "refusal": None}
    assert "griffin" not in answer and plain(p.Extras(seeds=[3])) == {"seeds": [3]}


def test_usage_adds_up():
    used = plain(p.usage(10, 5, cached=8, written=2, drafts=(3, 1)))
    assert used == {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 2},
        "completion_tokens_details": {
            "accepted_prediction_tokens": 3,
            "rejected_prediction_tokens": 1,
        },
    }


def test_ids_and_fingerprints():
    ids = {p.new_id("resp_") for _ in range(100)}
    assert len(ids) == 100 and all(id.startswith("resp_") and len(id) == 37 for id in ids)
    prints = [p.fingerprint(*parts) for parts in (("a", "b"), ("ab", ""), ("ab",), ("b", "a"))]
    assert len(set(prints)) == 4 and prints[0] == p.fingerprint("a", "b")
    assert p.request_id("trace-1.x") == "trace-1.x"
    for harmful in (None, "", "a b", "a\nb", "x" * 129, "é"):
        assert p.request_id(harmful).startswith("req_")


def test_a_response_stream_out_of_order_is_a_bug():
    stream = ResponseStream(HEAD, REQUEST)
    with pytest.raises(AssertionError):
        stream.more("x")
    stream.message()
    with pytest.raises(AssertionError):
        stream.end(p.usage(1, 1))
    with pytest.raises(AssertionError):
        stream.call("c", "f")


def test_a_stored_response_is_what_was_streamed():
    stream = ResponseStream(HEAD, REQUEST)
    sent = (
        stream.begin()
        + stream.message()
        + stream.more("a")
        + stream.more("b")
        + stream.close(whole=False)
    )
    sent += stream.end(p.usage(1, 2), whole=False)
    last = json.loads(sent.split(b"\n\n")[-2].split(b"data: ")[1])
    assert last["type"] == "response.incomplete"
    assert last["response"] == plain(stream.object("incomplete", used=p.usage(1, 2)))
    assert last["response"]["output"][0]["content"][0]["text"] == "ab"
    assert last["response"]["output"][0]["status"] == "incomplete"


def test_lists():
    session = SessionObject(id="a", created=1, last_used=2, title="", tokens=3, turns=1, bytes=4)
    page = plain(session_list([session, session], has_more=True))
    assert (page["first_id"], page["last_id"], page["has_more"], len(page["data"])) == (
        "a",
        "a",
        True,
        2,
    )
    assert plain(state_list([], has_more=False))["first_id"] is None
    assert plain(tokens([5, 6])) == {
        "tokens": [5, 6],
        "count": 2,
        "max_model_len": None,
        "token_strs": None,
    }
    assert limits_object(Limits())["max_choices"] == 16


def test_models_are_checked_by_name():
    served = ["nano", "other"]
    assert p.check_model(None, served) == "nano" and p.check_model("other", served) == "other"
    with pytest.raises(ApiError, match="lists nano, other"):
        p.check_model("gpt", served)
