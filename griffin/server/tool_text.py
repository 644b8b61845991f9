"""Tools as text, both ways: how the model is told of them, and how its calls are read. Experimental.

Nothing constrains what the model writes; what is no call is an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from griffin.server.protocol import Message, Tool, ToolCall, new_id

OPEN, CLOSE = "<tool_call>", "</tool_call>"


def with_tools(messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[Message, ...]:
    """Return the conversation with calls and results as text, after a message that describes the tools."""
    written = tuple(_written(message) for message in messages)
    return (Message("system", _described(tools)), *written) if tools else written


def read_calls(text: str, tools: Sequence[Tool], several: bool) -> list[ToolCall]:
    """Return the calls that an answer consists of; none if it is something else or calls no tool."""
    rest, names = text.strip(), {tool.name for tool in tools}
    calls: list[ToolCall] = []
    while rest.startswith(OPEN):
        inside, _, rest = rest.removeprefix(OPEN).partition(CLOSE)
        rest = rest.lstrip()
        try:
            call = msgspec.json.decode(inside.strip())
        except msgspec.DecodeError:
            return []
        if not isinstance(call, dict) or call.get("name") not in names:
            return []
        arguments = msgspec.json.encode(call.get("arguments", {})).decode()
        calls.append(ToolCall(new_id("call_"), call["name"], arguments))
    return [] if rest else calls[: None if several else 1]


def may_be_call(text: str) -> bool:
    """Return whether an answer that begins so may still be a call."""
    begun = text.lstrip()
    return begun.startswith(OPEN) or OPEN.startswith(begun)


def _written(message: Message) -> Message:
    if message.role == "tool":
        name = f" of {message.name}" if message.name else ""
        return Message("user", f"Result{name} ({message.tool_call_id}):\n{message.content}")
    if not message.tool_calls:
        return message
    calls = [_call(call.name, call.arguments) for call in message.tool_calls]
    content = "\n".join([message.content, *calls] if message.content else calls)
    return replace(message, content=content, tool_calls=())


def _call(name: str, arguments: str) -> str:
    return f'{OPEN}{{"name": {msgspec.json.encode(name).decode()}, "arguments": {arguments or "{}"}}}{CLOSE}'


def _described(tools: Sequence[Tool]) -> str:
    lines = [_tool(tool) for tool in tools]
    return (
        "You may call these functions:\n" + "\n".join(lines) + "\n"
        f'To call one, answer with nothing but {OPEN}{{"name": ..., "arguments": {{...}}}}{CLOSE}'
    )


def _tool(tool: Tool) -> str:
    about: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    return msgspec.json.encode(about).decode()
