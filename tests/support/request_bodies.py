"""Small bodies of every kind of request, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params

from griffin.server.endpoints.chat import body as chat
from griffin.server.endpoints.chat.body import ChatBody, parse_chat
from griffin.server.endpoints.completions import body as completions
from griffin.server.endpoints.completions.body import CompletionBody, parse_completion
from griffin.server.endpoints.embeddings.body import parse_embeddings
from griffin.server.endpoints.messages.body import parse_messages
from griffin.server.endpoints.ollama.body import (
    parse_embed,
    parse_embed_prompt,
    parse_generate,
    parse_ollama_chat,
    parse_show,
)
from griffin.server.endpoints.responses import body as responses
from griffin.server.endpoints.responses.body import ResponseBody, parse_response
from griffin.server.endpoints.sessions.body import (
    parse_append,
    parse_fork,
    parse_rewind,
    parse_session_change,
    parse_session_create,
)
from griffin.server.endpoints.states.body import parse_state_create
from griffin.server.endpoints.tokens.body import parse_detokenize, parse_template, parse_tokenize
from griffin.server.errors import ApiError
from griffin.server.limits import Limits

LIMITS = Limits(vocab_size=1000)
USER = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "object"}
PARSERS: dict[str, tuple[Callable[[bytes, Limits], Any], dict[str, Any]]] = {
    "chat": (parse_chat, {"messages": USER}),
    "completion": (parse_completion, {"prompt": "hello"}),
    "response": (parse_response, {"input": "hello"}),
    "message": (parse_messages, {"messages": USER, "max_tokens": 3}),
    "embedding": (parse_embeddings, {"input": "hello"}),
    "ollama": (parse_ollama_chat, {"messages": USER}),
    "generate": (parse_generate, {"prompt": "hello"}),
    "show": (parse_show, {"model": "nano"}),
    "embed": (parse_embed, {"input": "hello"}),
    "embed_prompt": (parse_embed_prompt, {"prompt": "hello"}),
    "session": (parse_session_create, {}),
    "change": (parse_session_change, {"title": "owls"}),
    "fork": (parse_fork, {}),
    "rewind": (parse_rewind, {}),
    "append": (parse_append, {"text": "hello"}),
    "state": (parse_state_create, {"name": "owls", "text": "hello"}),
    "tokenize": (parse_tokenize, {"prompt": "hello"}),
    "detokenize": (parse_detokenize, {"tokens": [1]}),
    "template": (parse_template, {"messages": USER}),
}
ENDPOINTS = {
    "chat": (chat.POLICY, ChatBody, chat_create_params.CompletionCreateParamsBase),
    "completion": (
        completions.POLICY,
        CompletionBody,
        completion_create_params.CompletionCreateParamsBase,
    ),
    "response": (responses.POLICY, ResponseBody, response_create_params.ResponseCreateParamsBase),
}


def parse(kind: str, limits: Limits = LIMITS, /, **fields: Any) -> Any:
    parser, least = PARSERS[kind]
    return parser(json.dumps(least | fields).encode(), limits)


def refused(kind: str, limits: Limits = LIMITS, /, **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse(kind, limits, **fields)
    assert 400 <= caught.value.status < 500 and caught.value.headers["x-should-retry"] == "false"
    return caught.value
