"""/v1/messages: the answer, whole or as events, and what a refusal looks like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from griffin.server.errors import ApiError, Failure
from griffin.server.protocol.messages import ToolCall
from griffin.server.protocol.reply import Extras, FinishReason, Head, Usage

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]

NO_INPUT = msgspec.Raw(b"{}")

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class TextBlock(msgspec.Struct, kw_only=True, tag_field="type", tag="text"):
    """What the model said."""

    text: str


class ToolUseBlock(msgspec.Struct, kw_only=True, tag_field="type", tag="tool_use"):
    """A call that the model makes. input: the arguments, {} of a call that was cut short."""

    id: str
    name: str
    input: msgspec.Raw


class MessageUsage(msgspec.Struct, kw_only=True):
    """What an answer cost. input_tokens: those that were read now; cached ones come beside."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int = 0


class AssistantMessage(msgspec.Struct, kw_only=True):
    """The answer of POST /v1/messages."""

    id: str
    model: str
    content: list[TextBlock | ToolUseBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    griffin: Extras | UnsetType = UNSET


class TokenCount(msgspec.Struct, kw_only=True):
    """The answer of POST /v1/messages/count_tokens."""

    input_tokens: int


class MessageError(msgspec.Struct, kw_only=True):
    """What went wrong, in Anthropic's words and in ours."""

    type: str
    message: str


class MessageFailure(Failure, frozen=True, kw_only=True):
    """The body of every answer here that is not a 2xx."""

    error: MessageError
    request_id: str
    type: Literal["error"] = "error"

    @classmethod
    def of(cls, error: ApiError, request_id: str) -> MessageFailure:
        status = error.status
        kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return cls(error=MessageError(type=kind, message=error.message), request_id=request_id)


def message_usage(used: Usage) -> MessageUsage:
    """Return what an answer cost as it is told here."""
    cached = used.prompt_tokens_details.cached_tokens
    return MessageUsage(
        input_tokens=used.prompt_tokens - cached,
        output_tokens=used.completion_tokens,
        cache_read_input_tokens=cached,
    )


def stop_of(finish: FinishReason, stop: str | None) -> tuple[StopReason, str | None]:
    """Return why an answer ended, and the stop sequence that ended it, if one did."""
    if finish == "tool_calls":
        return "tool_use", None
    if finish == "length":
        return "max_tokens", None
    return ("end_turn" if stop is None else "stop_sequence"), stop


def assistant_message(
    head: Head,
    used: Usage,
    *,
    text: str = "",
    calls: Sequence[ToolCall] = (),
    whole: bool = True,
    stopped: tuple[StopReason | None, str | None] = (None, None),
    extras: Extras | None = None,
) -> AssistantMessage:
    """Make the body of an answer, or what the first event of a stream says of one.

    whole: the last call was not cut short. stopped: as `stop_of` has it.
    """
    content: list[TextBlock | ToolUseBlock] = [TextBlock(text=text)] if text else []
    for number, call in enumerate(calls, start=1):
        uncut = whole or number < len(calls)
        arguments = msgspec.Raw(call.arguments.encode()) if uncut else NO_INPUT
        id = call.id.replace("call_", "toolu_", 1)
        content.append(ToolUseBlock(id=id, name=call.name, input=arguments))
    return AssistantMessage(
        id=head.id,
        model=head.model,
        content=content,
        stop_reason=stopped[0],
        stop_sequence=stopped[1],
        usage=message_usage(used),
        griffin=UNSET if extras is None else extras,
    )
