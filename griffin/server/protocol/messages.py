"""Conversations: roles and contents as clients send them, to messages that are plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from griffin.server.errors import INVALID, UNSUPPORTED, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol.body import show
from griffin.server.protocol.bounds import Id, check_most

Role = Literal["system", "user", "assistant", "tool"]

_ASSISTANT = ("assistant", "model")
_PARTS = ("text", "input_text", "output_text")


class Part(msgspec.Struct, kw_only=True):
    """A piece of a message's content; only text is read."""

    type: Annotated[str, Meta(max_length=64)]
    text: str | None = None
    refusal: str | None = None


Content = str | list[Part]


class CalledFunction(msgspec.Struct, kw_only=True):
    """Which function the model called, and with what: `arguments` is JSON in a string."""

    name: Id
    arguments: str = ""


class ToolCallBody(msgspec.Struct, kw_only=True):
    """A call that the model made earlier, as clients send it back."""

    id: Id
    function: CalledFunction
    type: Literal["function"] = "function"


class MessageBody(msgspec.Struct, kw_only=True):
    """One message of /v1/chat/completions. An assistant's may be calls without content.

    prefix: this last message, the assistant's, is how the answer begins, as it is without it.
    """

    role: Literal["system", "developer", "user", "assistant", "model", "tool"]
    content: Content | None = None
    name: Annotated[str, Meta(max_length=128)] | None = None
    tool_calls: list[ToolCallBody] | None = None
    tool_call_id: Id | None = None
    refusal: str | None = None
    prefix: bool | None = None


@dataclass(frozen=True)
class ToolCall:
    """A call of a function: `arguments` is the JSON text that the model wrote."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """One message. `developer` has become `system`, and `model` `assistant`; parts are joined."""

    role: Role
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


def read_messages(
    bodies: Sequence[MessageBody], limits: Limits, param: str = "messages"
) -> tuple[Message, ...]:
    """Return the conversation; ApiError with the path of what is wrong in it.

    The order of roles is the chat template's matter, not this function's.
    """
    if not bodies:
        raise ApiError(INVALID, f"{param} is empty; a conversation needs a user message", param)
    check_most(len(bodies), f"{param} has {len(bodies)} entries", limits, "max_messages", param)
    for index, body in enumerate(bodies):
        if body.prefix and (body.role not in _ASSISTANT or index + 1 < len(bodies)):
            raise ApiError(
                INVALID,
                f"{param}[{index}].prefix is true; only the assistant's last message can be how the"
                " answer begins",
                f"{param}[{index}].prefix",
            )
    return tuple(_message(body, f"{param}[{index}]", limits) for index, body in enumerate(bodies))


def check_end(
    messages: Sequence[Message],
    goes_on: bool | None = None,
    opens: bool | None = None,
    param: str = "messages",
) -> None:
    """Raise ApiError where an answer cannot follow the last message as asked.

    An assistant's is how the answer begins, which goes on from there.
    goes_on, opens: `continue_final_message` and `add_generation_prompt`, vLLM's words for going on
    with the last message and for an answer in a turn of its own; None if the request says nothing.
    """
    last = messages[-1]
    if goes_on and opens:
        message = "continue_final_message and add_generation_prompt are both true; send one"
        raise ApiError(INVALID, message, "continue_final_message")
    if last.role != "assistant":
        if goes_on:
            message = f"continue_final_message is true, but the last message is the {last.role}'s"
            raise ApiError(INVALID, message, "continue_final_message")
        if opens is False:
            message = "add_generation_prompt is false; an answer begins a turn of its own"
            raise ApiError(UNSUPPORTED, message, "add_generation_prompt")
    elif last.tool_calls:
        message = "the last message calls tools; send what came of that, and there is an answer"
        raise ApiError(INVALID, message, param)
    elif goes_on is False:
        message = (
            "the last message is the assistant's: without continue_final_message there is nothing"
            " to answer"
        )
        raise ApiError(INVALID, message, "continue_final_message")


def read_content(content: Content, param: str) -> str:
    """Join a content's parts; ApiError for a part that is no text, by its path."""
    if isinstance(content, str):
        return content
    return "".join(read_part(part, f"{param}[{index}]") for index, part in enumerate(content))


def read_part(part: Part, where: str) -> str:
    """Return a part's text; ApiError for a part that is no text. where: its path."""
    if part.type == "refusal" and part.refusal is not None:
        return part.refusal
    if part.type not in _PARTS:
        raise ApiError(
            UNSUPPORTED,
            f"{where} is of type {show(part.type)}; this model reads text only",
            f"{where}.type",
        )
    if part.text is None:
        raise ApiError(INVALID, f"{where}.text is missing", f"{where}.text")
    return part.text


def turns(
    messages: Sequence[Message], *, first: bool = True, begun: bool = False
) -> list[dict[str, str]]:
    """Return the conversation as griffin.text.Chat takes it: first a system message, then user and
    assistant.

    Neighbours of one role become one message, with a blank line between. System messages at the
    beginning join likewise; a later one joins the user's message after it, or the one before it if
    it is the last. Nothing is dropped and the order stays. Calls and results of tools must have
    been written as text before: ValueError if one is left.

    A conversation of nothing but a system message, or whose first word is the assistant's, begins
    with a turn of the user's all the same: it has the system message, or nothing.

    first: the conversation begins with them. Otherwise a system message at their beginning is a
    later one, too.
    begun: it has begun before, so that a system message alone says only what holds from now on.
    """
    plain: list[tuple[str, str]] = []
    for index, message in enumerate(messages):
        if message.role == "tool" or message.tool_calls:
            raise ValueError(f"messages[{index}] is about a tool and was not written as text")
        # Only a system message that comes before everything else keeps its role.
        role = (
            "user"
            if message.role == "system" and not (first and all(r == "system" for r, _ in plain))
            else message.role
        )
        if plain and plain[-1][0] == role:
            plain[-1] = (role, f"{plain[-1][1]}\n\n{message.content}")
        else:
            plain.append((role, message.content))
    if first:
        plain = _opened(plain, begun)
    return [{"role": role, "content": content} for role, content in plain]


def _opened(plain: list[tuple[str, str]], begun: bool) -> list[tuple[str, str]]:
    """Let a conversation begin with the user."""
    roles = [role for role, _ in plain[:2]]
    if roles[:1] == ["assistant"]:
        return [("user", ""), *plain]
    if roles == ["system", "assistant"] or (roles == ["system"] and not begun):
        return [("user", plain[0][1]), *plain[1:]]
    return plain


def _message(body: MessageBody, param: str, limits: Limits) -> Message:
    role: Role
    if body.role in ("system", "developer"):
        role = "system"
    elif body.role in _ASSISTANT:
        role = "assistant"
    else:
        role = "tool" if body.role == "tool" else "user"
    calls = body.tool_calls or []
    if calls and role != "assistant":
        raise ApiError(
            INVALID, f"{param} calls tools; only the assistant does", f"{param}.tool_calls"
        )
    check_most(
        len(calls), f"{param}.tool_calls has {len(calls)} entries", limits, "max_tools", param
    )
    if role == "tool" and body.tool_call_id is None:
        raise ApiError(INVALID, f"{param}.tool_call_id is missing", f"{param}.tool_call_id")
    content = body.content
    if content is None:
        if role != "assistant" or not (calls or body.refusal is not None):
            raise ApiError(INVALID, f"{param}.content is missing", f"{param}.content")
        content = body.refusal or ""
    return Message(
        role=role,
        content=read_content(content, f"{param}.content"),
        name=body.name,
        tool_calls=tuple(ToolCall(c.id, c.function.name, c.function.arguments) for c in calls),
        tool_call_id=body.tool_call_id if role == "tool" else None,
    )
