"""Small bodies of every kind of request, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params

from griffin.server import protocol as p
from griffin.server.errors import ApiError
from griffin.server.limits import Limits
from griffin.server.protocol import policy
from griffin.server.protocol.chat import ChatBody
from griffin.server.protocol.completions import CompletionBody
from griffin.server.protocol.responses import ResponseBody

LIMITS = Limits(vocab_size=1000)
USER = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "object"}
PARSERS: dict[str, tuple[Callable[[bytes, Limits], Any], dict[str, Any]]] = {
    "chat": (p.parse_chat, {"messages": USER}),
    "completion": (p.parse_completion, {"prompt": "hello"}),
    "response": (p.parse_response, {"input": "hello"}),
    "session": (p.parse_session_create, {}),
    "change": (p.parse_session_change, {"title": "owls"}),
    "fork": (p.parse_fork, {}),
    "rewind": (p.parse_rewind, {}),
    "append": (p.parse_append, {"text": "hello"}),
    "state": (p.parse_state_create, {"name": "owls", "text": "hello"}),
    "tokenize": (p.parse_tokenize, {"prompt": "hello"}),
    "detokenize": (p.parse_detokenize, {"tokens": [1]}),
    "template": (p.parse_template, {"messages": USER}),
}
ENDPOINTS = {
    "chat": (policy.CHAT, ChatBody, chat_create_params.CompletionCreateParamsBase),
    "completion": (
        policy.COMPLETION,
        CompletionBody,
        completion_create_params.CompletionCreateParamsBase,
    ),
    "response": (policy.RESPONSE, ResponseBody, response_create_params.ResponseCreateParamsBase),
}


def parse(kind: str, limits: Limits = LIMITS, /, **fields: Any) -> Any:
    parser, least = PARSERS[kind]
    return parser(json.dumps(least | fields).encode(), limits)


def refused(kind: str, limits: Limits = LIMITS, /, **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse(kind, limits, **fields)
    assert 400 <= caught.value.status < 500 and caught.value.headers["x-should-retry"] == "false"
    return caught.value
