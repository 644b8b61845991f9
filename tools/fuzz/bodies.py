"""Bodies of requests, of every endpoint and dialect, right and wrong: to a server in this process.

A case is a path and what is sent there: a good body with fields of any dialect added, values of
other types put in, or bytes changed. No answer is a 500, and none takes long.
"""

from __future__ import annotations

import copy
import json
import random
import tempfile
from base64 import b64decode, b64encode
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx2

import griffin
from tests.support.dialects import DIALECTS
from tests.support.live_server import serving
from tests.support.schema_cases import draw_schema
from tests.support.toy_folder import write_toy

ALLOWED = ()

_TALK = [{"role": "user", "content": "hello"}]
_PATHS: dict[str, dict[str, Any]] = {
    "POST /v1/chat/completions": {"messages": _TALK, "max_tokens": 3},
    "POST /v1/completions": {"prompt": "hello", "max_tokens": 3},
    "POST /v1/responses": {"input": "hello", "max_output_tokens": 3},
    "POST /v1/messages": {"messages": _TALK, "max_tokens": 3},
    "POST /v1/messages/count_tokens": {"messages": _TALK},
    "POST /v1/embeddings": {"input": ["hello", "owl"]},
    "POST /api/chat": {"messages": _TALK, "options": {"num_predict": 3}},
    "POST /api/generate": {"prompt": "hello", "options": {"num_predict": 3}},
    "POST /api/show": {"model": "toy"},
    "POST /api/embed": {"input": ["hello", "owl"]},
    "POST /api/embeddings": {"prompt": "hello"},
    "POST /v1/responses/input_tokens": {"input": "hello"},
    "POST /v1/conversations": {"items": _TALK, "metadata": {"a": "b"}},
    "POST /v1/conversations/CONV": {"metadata": {"a": "b"}},
    "POST /v1/conversations/CONV/items": {"items": _TALK},
    "POST /v1/sessions": {"title": "owls"},
    "PATCH /v1/sessions/s": {"title": "owls"},
    "POST /v1/sessions/s/fork": {},
    "POST /v1/sessions/s/rewind": {},
    "POST /v1/sessions/s/append": {"text": "hello"},
    "POST /v1/states": {"name": "t", "text": "hello"},
    "POST /tokenize": {"prompt": "hello"},
    "POST /detokenize": {"tokens": [1]},
    "POST /apply-template": {"messages": _TALK},
}
_ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        3.0,
        2.5,
        1e300,
        2**63,
        2**64,
        "",
        "a",
        "\ud7ff",
        [],
        {},
        [None],
    ),
    *([[]], {"a": None}, "0", "\u0000", [1, "a"], -0.0, 10**30, "x" * 300),
)
_FLAGS = (
    *("stream", "logprobs", "echo", "n", "top_logprobs", "session_id"),
    *("continue_final_message", "add_generation_prompt", "return_state"),
    *("min_tokens", "ignore_eos", "allowed_token_ids", "dimensions", "encoding_format", "pooling"),
    *("return_token_ids", "return_tokens_as_token_ids", "prompt_logprobs", "return_progress"),
    "truncate_prompt_tokens",
)
_RULES = (
    *("[ab]+", "(a|", ["a", "é"], [], 'root ::= "a" [b-d]{2}', "start: x", "root ::= root"),
    *('start: /a+/ | %json {"type": "null"}', "::=", "(a{9}){9}", "x" * 300),
)
_ITEMS: tuple[dict[str, Any], ...] = (
    {"type": "item_reference", "id": "msg_known"},
    {"id": "msg_known"},
    {"type": "item_reference", "id": "msg_nobody"},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "id": "fc_1"},
    {"type": "function_call_output", "call_id": "c", "output": [{"type": "text", "text": "a"}]},
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    {"type": "message", "role": "developer", "content": "a", "id": "msg_known"},
)
_BLOCKS: tuple[Any, ...] = (
    {"type": "text", "text": "a"},
    {"type": "tool_use", "id": "c", "name": "f", "input": {"a": [1]}},
    {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "b"}]},
    {"type": "tool_result", "tool_use_id": "c", "is_error": True},
    {"type": "thinking", "thinking": "a", "signature": "b"},
    {"type": "image", "source": {"type": "url", "url": "x"}},
)
_ROLES = ("system", "developer", "user", "assistant", "model", "tool", "owl")


@dataclass(frozen=True)
class Case:
    """What is sent where."""

    route: str
    body: bytes

    def __str__(self) -> str:
        return f"{self.route} {self.body[:2000]!r}"


def make(chance: random.Random) -> Case:
    """Draw a case."""
    route = chance.choice([*_PATHS, *list(_PATHS)[:4] * 4])
    body = json.loads(json.dumps(_PATHS[route]))
    for _ in range(chance.randint(0, 4)):
        _add(chance, body)
    body = json.loads(json.dumps(body))  # parts of it are everybody's
    if chance.random() < 0.4:
        _spoil(chance, body)
    sent = json.dumps(body).encode()
    if chance.random() < 0.08:
        at = chance.randrange(len(sent) + 1)
        sent = sent[:at] + chance.choice([b"", b"\xff", b"{", b"]", b"1e999"]) + sent[at + 1 :]
    return Case(route, sent)


def attempt(case: Case) -> None:
    """Send a body; whatever it is, the answer is one that the interface has."""
    client, conversation = _client()
    method, path = case.route.replace("CONV", conversation).split()
    headers = {"content-type": "application/json"}
    content = case.body.replace(b"CONV", conversation.encode())
    answer = client.request(method, path, content=content, headers=headers)
    assert answer.status_code < 500 or answer.status_code == 507, answer.text
    if answer.headers["content-type"].startswith("application/json"):
        assert ("error" in answer.json()) is (answer.status_code >= 400) or "status" in (
            answer.json()
        )
    else:
        assert "the server failed on this request" not in answer.text


def _add(chance: random.Random, body: dict[str, Any]) -> None:
    schema = draw_schema(chance, 2)
    function = {"name": "f", "parameters": schema, "strict": chance.random() < 0.3}
    kinds = ("dialect", "dialect", "format", "structured", "tools", "messages", "items", "state")
    kind = chance.choice(["flag", "flat", "blocks", "options", *kinds])
    if kind == "dialect":
        fields = DIALECTS[chance.choice(list(DIALECTS))]
        name = chance.choice(list(fields))
        body[name] = fields[name]
    elif kind == "format":
        described = {"name": "x", "schema": schema, "strict": chance.random() < 0.3}
        body["response_format"] = {
            "type": chance.choice(["json_object", "json_schema", "json", "text", "x"]),
            chance.choice(["json_schema", "schema", "value"]): chance.choice([described, schema]),
        }
    elif kind == "structured":
        name = chance.choice(["json", "regex", "choice", "grammar", "json_object"])
        value = chance.choice([schema, json.dumps(schema), *_RULES])
        if chance.random() < 0.6:
            body["structured_outputs"] = {name: value}
        else:
            body[chance.choice([f"guided_{name}", "grammar", "json_schema"])] = value
    elif kind == "tools":
        body["tools"] = [{"type": "function", "function": function}]
        body["tool_choice"] = chance.choice(["auto", "required", "none"])
    elif kind == "flat":
        body["tools"] = [{"type": "function", **function}]
        body["text"] = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    elif kind == "blocks":
        body["tools"] = [{"name": "f", "input_schema": schema}]
        body["tool_choice"] = {"type": chance.choice(["auto", "any", "tool", "none"]), "name": "f"}
        blocks = [chance.choice(_BLOCKS) for _ in range(chance.randint(0, 3))]
        body["messages"] = [*_TALK, {"role": chance.choice(_ROLES), "content": blocks}]
    elif kind == "options":
        name = chance.choice(["num_predict", "seed", "top_k", "stop", "mirostat"])
        body["options"] = {name: chance.choice(_ODD)}
        body["format"] = chance.choice(["json", "", schema])
    elif kind == "state":
        body["state_data"] = b64encode(_damaged(chance)).decode()
    elif kind == "messages":
        roles = [chance.choice(_ROLES) for _ in range(chance.randint(0, 3))]
        talk = [{"role": role, "content": chance.choice(["", "a", *_ODD])} for role in roles]
        if talk and chance.random() < 0.3:
            talk[-1] = {"role": "assistant", "content": chance.choice(["{", " a"]), "prefix": True}
        body[chance.choice(["messages", "input"])] = talk
    elif kind == "items":
        drawn = [chance.choice([*_ITEMS, *_TALK]) for _ in range(chance.randint(0, 4))]
        body[chance.choice(["input", "items"])] = drawn
        if chance.random() < 0.3:
            body["conversation"] = chance.choice(["CONV", "conv_nobody", "mine", {"id": "CONV"}])
    else:
        name = chance.choice(_FLAGS)
        body[name] = chance.choice([True, False, 1, 2.0, 300, "s", "base64", "last", [300, 301]])


@cache
def _state() -> bytes:
    """Return the state of a conversation with the server, as it goes over the wire."""
    asked = {"messages": _TALK, "max_tokens": 3, "seed": 1, "return_state": True}
    answer = _client()[0].post("/v1/chat/completions", json=asked)
    return b64decode(answer.json()["griffin"]["state_data"])


def _damaged(chance: random.Random) -> bytes:
    """Return a state that was cut or changed anywhere, its checksums as they were; or a whole
    one."""
    data = bytearray(_state())
    for _ in range(chance.choice([0, 1, 1, 3])):
        at = chance.randrange(chance.choice([8, 2000, len(data)]))
        data[at] = chance.randrange(256)
    return bytes(data[: chance.randrange(len(data))] if chance.random() < 0.2 else data)


def _spoil(chance: random.Random, value: Any) -> None:
    """Put a value of another type somewhere."""
    if isinstance(value, dict) and value:
        key = chance.choice(list(value))
    elif isinstance(value, list) and value:
        key = chance.randrange(len(value))
    else:
        return
    if isinstance(value[key], (dict, list)) and value[key] and chance.random() < 0.6:
        _spoil(chance, value[key])
    else:
        value[key] = copy.deepcopy(chance.choice(_ODD))


_KEPT = ExitStack()  # until the process ends


@cache
def _client() -> tuple[httpx2.Client, str]:
    """Return a client of a server, and the id of a conversation there."""
    folder = Path(_KEPT.enter_context(tempfile.TemporaryDirectory()))
    llm = griffin.load(write_toy(folder / "toy"), device="cpu")
    limits = {"max_tokens": 6, "default_max_tokens": 3, "max_rows": 8}
    options = {"store_bytes": 4 << 20, "state_data": True}
    live = _KEPT.enter_context(serving(llm, folder / "store", limits=limits, **options))
    http = _KEPT.enter_context(live.http())
    http.post("/v1/sessions", json={"name": "s"})
    known = {"role": "user", "content": "known", "id": "msg_known"}
    made = http.post("/v1/conversations", json={"items": [known]})
    return http, made.json()["id"]
