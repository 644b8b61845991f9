"""Whatever comes in: a request, or a 4xx that says why, and soon."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from griffin.sampling import SamplingParams
from griffin.server import protocol as p
from griffin.server.errors import ApiError
from griffin.server.protocol import policy
from griffin.server.protocol.shape import shape_of
from tests.support.request_bodies import ENDPOINTS, LIMITS, PARSERS

SLOW = 100  # times as long as all good bodies together take, for bodies of a few hundred bytes

# Bodies that use everything; the fuzz breaks them in one place.
SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, None]}}}
SHARED = {
    "model": "nano",
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 3,
    "min_p": 0.1,
    "seed": -4,
    "stream": True,
    "repetition_penalty": 1.1,
    "presence_penalty": 1,
    "frequency_penalty": -1,
    "stop": ["a", "b"],
    "logit_bias": {"1": 5.5},
    "stop_token_ids": [1],
    "min_tokens": 0,
    "ignore_eos": True,
    "draft": 3,
    "allowed_token_ids": [5],
    "session_id": "s",
    "state": "t",
    "prompt_cache_key": "k",
}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
MESSAGES = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": [{"type": "text", "text": "x"}], "name": "n"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "y", "tool_call_id": "c"},
]
BLOCKS = [
    {"role": "user", "content": [{"type": "text", "text": "x"}]},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "y"}]},
            {"type": "text", "text": "x"},
        ],
    },
]
OLLAMA = {
    "model": "nano:latest",
    "stream": False,
    "options": {"num_predict": 5, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1}
    | {"seed": -4, "stop": ["a"], "repeat_penalty": 1.1, "presence_penalty": 1, "num_ctx": 4096},
    "format": SCHEMA,
    "keep_alive": "5m",
    "think": False,
    "logprobs": True,
    "top_logprobs": 2,
}
OLLAMA_TALK = [
    {"role": "user", "content": "x"},
    {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
    {"role": "tool", "content": "y", "tool_name": "f"},
]
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}
NAMED_SCHEMA = {"name": "n", "schema": SCHEMA, "strict": True}
ITEMS = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "y"},
]
RICH: dict[str, dict[str, Any]] = {
    "chat": SHARED
    | {"messages": MESSAGES, "max_tokens": 5, "n": 2, "logprobs": True, "top_logprobs": 2}
    | {
        "stream_options": {"include_usage": True},
        "tools": [{"type": "function", "function": FUNCTION}],
    }
    | {"tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": False}
    | {"response_format": {"type": "json_schema", "json_schema": NAMED_SCHEMA}},
    "completion": SHARED
    | {"prompt": [[1, 2], [3]], "max_tokens": 0, "n": 2, "echo": True, "logprobs": 1}
    | {"structured_outputs": {"choice": ["a", "b"]}}
    | {"return_token_ids": True, "return_tokens_as_token_ids": True, "return_progress": True}
    | {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    "response": SHARED
    | {
        "input": ITEMS,
        "instructions": "i",
        "max_output_tokens": 5,
        "previous_response_id": "resp_1",
    }
    | {
        "store": True,
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
        "metadata": {"a": "b"},
    }
    | {
        "tools": [{"type": "function", **FUNCTION}],
        "tool_choice": {"type": "function", "name": "f"},
    }
    | {"text": {"format": {"type": "json_schema", **NAMED_SCHEMA}}},
    "message": SHARED
    | {"messages": BLOCKS, "max_tokens": 5, "system": [{"type": "text", "text": "s"}]}
    | {"stop_sequences": ["a"], "stop": None, "thinking": {"type": "enabled", "budget_tokens": 9}}
    | {"tools": [{"name": "f", "description": "d", "input_schema": SCHEMA, "strict": True}]}
    | {"tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True}}
    | {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    "embedding": {
        "input": [[1, 2], [3]],
        "encoding_format": "base64",
        "dimensions": 3,
        "pooling": "last",
    },
    "ollama": OLLAMA
    | {"messages": OLLAMA_TALK, "tools": [{"type": "function", "function": FUNCTION}]},
    "generate": OLLAMA | {"prompt": "x", "system": "s", "raw": False},
    "show": {"model": "nano", "name": "nano", "verbose": True},
    "embed": {"input": ["a", "b"], "dimensions": 3, "truncate": True, "options": {}},
    "embed_prompt": {"prompt": "a", "model": "nano", "keep_alive": 0},
    "session": {"name": "s", "title": "t", "state": "x"},
    "change": {"name": "s", "title": "t"},
    "fork": {"name": "s", "title": "t", "at": 1},
    "rewind": {"to": 2},
    "append": {"messages": MESSAGES},
    "state": {"name": "s", "title": "t", "session": "x", "at": 1},
    "tokenize": {"messages": MESSAGES, "add_generation_prompt": False, "return_token_strs": True},
    "detokenize": {"tokens": [1, 2], "model": "nano"},
    "template": {"messages": MESSAGES, "add_generation_prompt": True},
}
WORDS = [
    "type",
    "text",
    "role",
    "content",
    "name",
    "id",
    "schema",
    "image_url",
    "arguments",
    "1",
    "x",
]

leaves = st.one_of(
    st.sampled_from(
        [None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308]
    ),
    st.sampled_from(
        ["user", "assistant", "text", "function", "json_schema", "none", "", "\x00", "🦉", "\ud800"]
    ),
    st.integers(),
    st.floats(),  # NaN and infinities, which json writes as such
    st.text(max_size=8),
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3)
    ),
    max_leaves=8,
)


def fields(kind: str) -> list[str]:
    """Return every field that a parser knows, in whichever table."""
    if kind not in ENDPOINTS:
        return sorted(
            {*RICH[kind], *policy.OWN.refused, "text", "tokens", "session", "turns", "content"}
        )
    tables, body, _ = ENDPOINTS[kind]
    return sorted(set(shape_of(body).fields or ()) | tables.ignored | set(tables.refused))


FIELDS = {kind: fields(kind) for kind in RICH}


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw a parser and a body: nonsense, any JSON, known fields with any values, or a good body
    broken."""
    kind = draw(st.sampled_from(sorted(RICH)))
    way = draw(st.integers(0, 9))
    if way == 0:
        return kind, draw(st.binary(max_size=60))
    if way == 1:
        return kind, written(draw(values))
    if way <= 4:
        chosen = draw(st.dictionaries(st.sampled_from(FIELDS[kind]), values, max_size=4))
        body = written(PARSERS[kind][1] | chosen)
    else:
        body = written(broken(draw, RICH[kind]))
    if way == 9:
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=4)) + body[at + draw(st.integers(0, 4)) :]
    return kind, body


def broken(draw: st.DrawFn, body: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a good body in which something, somewhere, is another value, gone, or
    new."""
    body = copy.deepcopy(body)
    place: Any = body
    while True:
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not (isinstance(place[key], (dict, list)) and place[key] and draw(st.booleans())):
            break
        place = place[key]
    what = draw(st.sampled_from(["change", "remove", "add", "nothing"]))
    if what == "change":
        place[key] = draw(values)
    elif what == "remove":
        del place[key]
    elif what == "add" and isinstance(place, dict):
        place[draw(st.sampled_from(WORDS) | st.text(max_size=8))] = draw(values)
    return body


def written(value: Any) -> bytes:
    return json.dumps(value).encode()


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(bodies())
def test_any_body_is_a_request_or_a_4xx(drawn):
    check(*drawn)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(bodies())
def test_ten_thousand_bodies(drawn):
    check(*drawn)


@pytest.mark.parametrize("kind", sorted(RICH))
def test_the_good_bodies_are_good(kind):
    assert check(kind, written(RICH[kind]))


def check(kind: str, body: bytes) -> bool:
    """Parse a body; return whether it became a request."""
    started = time.thread_time()
    request = parsed(kind, body)
    if time.thread_time() - started > 0.1:  # far too long, or a busy machine or garbage collection
        usual = min(spent(*(RICH.items())) for _ in range(3))
        assert min(spent((kind, body)) for _ in range(3)) < SLOW * usual
    return request


def spent(*bodies: tuple[str, Any]) -> float:
    """Return the seconds of this thread's own time that parsing takes."""
    started = time.thread_time()
    for kind, body in bodies:
        parsed(kind, body if isinstance(body, bytes) else written(body))
    return time.thread_time() - started


def parsed(kind: str, body: bytes) -> bool:
    """Parse a body and check what comes of it; return whether that is a request."""
    try:
        asked: Any = PARSERS[kind][0](body, LIMITS)
    except ApiError as error:
        assert 400 <= error.status < 500
        shown = json.loads(error.body())["error"]
        assert shown["message"] and len(error.body()) < 4000
        assert all(value.isprintable() for value in error.headers.values())
        return False
    ignored = asked[1] if isinstance(asked, tuple) else asked.ignored
    for value in p.ignored_header(ignored).values():
        assert value.isprintable() and value.isascii() and value == value.strip()
    # What was let through can be run: the engine's own checks find nothing more, and texts can be
    # encoded.
    if (sampling := getattr(asked, "sampling", None)) is not None:
        SamplingParams.from_dict(sampling).check_vocabulary(LIMITS.vocab_size)
    repr(asked).encode("utf-8")
    return True
