"""Items: what /v1/responses reads and what a conversation holds, each under an id.

In a body an item is an ItemBody; read, it is plain values as clients see them again, with its id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from griffin.server.errors import INVALID, NO_ITEM, TORN, UNSUPPORTED, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol.body import show
from griffin.server.protocol.bounds import Id, check_most, needed
from griffin.server.protocol.messages import Content, Message, ToolCall, read_content
from griffin.server.protocol.policy import TEXT_ONLY, Refusal
from griffin.server.protocol.reply import new_id

PlainItem = dict[str, Any]  # with "id" and "type"

_LONGEST = 128  # of an id that is kept; a longer one is another server's, and gets one of ours


class ItemBody(msgspec.Struct, kw_only=True):
    """A message, a function call made earlier, a function's output, or a reference to an item that
    is kept: {"type": "item_reference", "id": ...}, or the id alone."""

    type: Annotated[str, Meta(max_length=64)] | None = None
    id: str | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Content | None = None
    call_id: Id | None = None
    name: Id | None = None
    arguments: str | None = None
    output: Content | None = None


class ItemList(msgspec.Struct, kw_only=True):
    """A page of items, or those that were made."""

    data: list[dict[str, Any]]
    has_more: bool
    first_id: str | None
    last_id: str | None
    object: Literal["list"] = "list"


def ignored_in(field: str) -> frozenset[str]:
    """Return what items in a field of a body may hold and nobody reads."""
    own = ("status", "phase", "summary", "encrypted_content", "caller", "namespace", "async")
    parts = ("annotations", "logprobs", "prompt_cache_breakpoint")
    return frozenset(
        (*(f"{field}[].{name}" for name in own), *(f"{field}[].content[].{n}" for n in parts))
    )


def refused_in(field: str) -> dict[str, Refusal]:
    """Return what items in a field of a body may not hold."""
    parts = ("image_url", "file_id", "file_data", "file_url", "input_audio")
    return {
        f"{field}[].tools": Refusal("use tools"),
        **{f"{field}[].content[].{name}": TEXT_ONLY for name in parts},
    }


def read_items(bodies: Sequence[ItemBody], limits: Limits, param: str) -> tuple[PlainItem, ...]:
    """Return items as they are kept; one without an id gets one, a reference stays one.

    Raises ApiError with the path of what is wrong.
    """
    check_most(len(bodies), f"{param} has {len(bodies)} entries", limits, "max_messages", param)
    return tuple(_read(body, f"{param}[{index}]") for index, body in enumerate(bodies))


def text_item(text: str) -> PlainItem:
    """Return a text as the user's message."""
    return _message("user", [{"type": "input_text", "text": text}], None)


def references(items: Sequence[PlainItem]) -> list[str]:
    """Return the ids that items refer to."""
    return [item["id"] for item in items if item["type"] == "item_reference"]


def resolved(
    items: Sequence[PlainItem], kept: Mapping[str, PlainItem], param: str
) -> tuple[PlainItem, ...]:
    """Return items, with those that are kept in the place of references to them.

    kept: by id. ApiError (404) for one that is not there.
    """
    found: list[PlainItem] = []
    for index, item in enumerate(items):
        if item["type"] == "item_reference":
            if item["id"] not in kept:
                raise ApiError(
                    NO_ITEM,
                    f"there is no item {item['id']!r}; it was not stored (store: false), was"
                    " deleted with its response or conversation, or is another key's",
                    f"{param}[{index}].id",
                )
            item = kept[item["id"]]
        found.append(item)
    return tuple(found)


def messages_of(items: Sequence[PlainItem], param: str) -> tuple[Message, ...]:
    """Return items as messages; ApiError if there is none, and for one that was damaged where it is
    kept. No reference is left among them."""
    try:
        messages = _messages(items)
    except (AttributeError, KeyError, TypeError):
        message = f"an item that {param} goes on from is damaged in the store; delete it"
        raise ApiError(TORN, message, param) from None
    if not messages:
        raise ApiError(INVALID, f"{param} holds no message", param)
    return tuple(messages)


def _messages(items: Sequence[PlainItem]) -> list[Message]:
    messages: list[Message] = []
    for item in items:
        if item["type"] == "message":
            text = "".join(
                part.get("text") or part.get("refusal") or "" for part in item["content"]
            )
            role = "system" if item["role"] == "developer" else item["role"]
            messages.append(Message(role, text))
        elif item["type"] == "function_call":
            call = ToolCall(item["call_id"], item["name"], item["arguments"])
            # What the model said and what it called in one turn are one message.
            last = messages[-1] if messages and messages[-1].role == "assistant" else None
            if last is None:
                messages.append(Message("assistant", "", tool_calls=(call,)))
            else:
                messages[-1] = replace(last, tool_calls=(*last.tool_calls, call))
        elif item["type"] == "function_call_output":
            messages.append(Message("tool", item["output"], tool_call_id=item["call_id"]))
        # A model's reasoning: this one has none; what another one thought says nothing here.
    return messages


def _read(body: ItemBody, param: str) -> PlainItem:
    bare = body.role is None and body.content is None
    if body.type == "item_reference" or (body.type is None and bare and body.id is not None):
        id = needed(body.id, f"{param}.id")
        if not 1 <= len(id) <= _LONGEST:
            raise ApiError(INVALID, f"{param}.id is no id of an item", f"{param}.id")
        return {"id": id, "type": "item_reference"}
    if body.type in (None, "message"):
        role = needed(body.role, f"{param}.role")
        content = needed(body.content, f"{param}.content")
        read_content(content, f"{param}.content")
        parts = (
            [("text", content)]
            if isinstance(content, str)
            else [
                ("refusal", part.refusal) if part.type == "refusal" else ("text", part.text)
                for part in content
            ]
        )
        return _message(role, [_part(role, *part) for part in parts], body.id)
    if body.type == "function_call":
        return {
            "id": _id(body.id, "fc_"),
            "type": "function_call",
            "call_id": needed(body.call_id, f"{param}.call_id"),
            "name": needed(body.name, f"{param}.name"),
            "arguments": needed(body.arguments, f"{param}.arguments"),
            "status": "completed",
        }
    if body.type == "function_call_output":
        output = read_content(needed(body.output, f"{param}.output"), f"{param}.output")
        return {
            "id": _id(body.id, "fco_"),
            "type": "function_call_output",
            "call_id": needed(body.call_id, f"{param}.call_id"),
            "output": output,
            "status": "completed",
        }
    if body.type == "reasoning":
        return {"id": _id(body.id, "rs_"), "type": "reasoning", "summary": []}
    raise ApiError(
        UNSUPPORTED,
        f"{param} is of type {show(body.type)}; this server takes message, function_call,"
        " function_call_output and item_reference",
        f"{param}.type",
    )


def _message(role: str, content: list[dict[str, Any]], id: str | None) -> PlainItem:
    return {
        "id": _id(id, "msg_"),
        "type": "message",
        "role": role,
        "content": content,
        "status": "completed",
    }


def _part(role: str, kind: str, text: str | None) -> dict[str, Any]:
    if kind == "refusal":
        return {"type": "refusal", "refusal": text}
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}


def _id(given: str | None, prefix: str) -> str:
    return given if given and len(given) <= _LONGEST else new_id(prefix)
