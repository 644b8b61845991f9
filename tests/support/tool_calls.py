"""Tools and forms to ask for, and what calls and streams of them are held to."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, Field

from tests.support.live_server import NAME

HI = [{"role": "user", "content": "Hi there"}]


TALLY = {
    "type": "object",
    "properties": {"at": {"enum": ["owl", "é"]}, "n": {"$ref": "#/$defs/digit"}},
    "required": ["at", "n"],
    "additionalProperties": False,
    "$defs": {"digit": {"type": "integer", "minimum": 0, "maximum": 9}},
}


LOOK = {"name": "look", "parameters": TALLY}


LOOK_UP = {"name": "look_up"}


TOOLS = [{"type": "function", "function": function} for function in (LOOK, LOOK_UP)]


FLAT = [{"type": "function", **function} for function in (LOOK, LOOK_UP)]


IMPOSSIBLE = {"type": "array", "uniqueItems": True}


class Owl(BaseModel):
    name: str = Field(max_length=8)
    age: int = Field(ge=0, le=99)
    kind: Literal["barn", "eagle"] | None


def ask(client, **fields):
    return client.chat.completions.create(
        **{"model": NAME, "messages": HI, "max_tokens": 400, "seed": 1} | fields
    )


def valid(name, arguments):
    made = json.loads(arguments)
    if name == "look_up":
        return made == {}
    return set(made) == {"at", "n"} and made["at"] in ("owl", "é") and 0 <= made["n"] <= 9


def streamed(chunks):
    """Return text, calls and the finish reason of a stream, checking its rules."""
    text, calls, finish = "", [], None
    for chunk in chunks:
        (choice,) = chunk.choices
        text += choice.delta.content or ""
        for delta in choice.delta.tool_calls or []:
            if delta.index == len(calls):
                assert delta.id.startswith("call_") and delta.type == "function"
                calls.append([delta.function.name, ""])
            else:
                assert delta.index == len(calls) - 1 and delta.id is delta.function.name is None
            calls[-1][1] += delta.function.arguments or ""
        finish = choice.finish_reason or finish
    return text, [tuple(call) for call in calls], finish


def whole(choice):
    calls = choice.message.tool_calls or []
    assert len({call.id for call in calls}) == len(calls)
    return (
        choice.message.content or "",
        [(call.function.name, call.function.arguments) for call in calls],
        choice.finish_reason,
    )
