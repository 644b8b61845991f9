"""/v1/responses: the response object, and its output items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from griffin.server.endpoints.responses.body import ResponseRequest
from griffin.server.errors import ApiError
from griffin.server.protocol.messages import ToolCall
from griffin.server.protocol.reply import (
    Extras,
    Head,
    Scored,
    TokenLogprob,
    Usage,
    new_id,
    token_logprobs,
)
from griffin.server.protocol.structured import TextFormat
from griffin.server.protocol.tools import ToolChoice

ItemStatus = Literal["in_progress", "completed", "incomplete"]
ResponseStatus = Literal["in_progress", "completed", "incomplete", "failed"]


class OutputText(msgspec.Struct, kw_only=True, tag_field="type", tag="output_text"):
    """The text of a message."""

    text: str
    annotations: list[Any] = []
    logprobs: list[TokenLogprob] = []


class OutputMessage(msgspec.Struct, kw_only=True, tag_field="type", tag="message"):
    """What the model says."""

    id: str
    content: list[OutputText]
    status: ItemStatus
    role: Literal["assistant"] = "assistant"


class OutputCall(msgspec.Struct, kw_only=True, tag_field="type", tag="function_call"):
    """A function that the model calls; `call_id` goes with its output."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: ItemStatus


OutputItem = OutputMessage | OutputCall


class InputTokens(msgspec.Struct, kw_only=True):
    """How many tokens an answer would follow, those read before included."""

    input_tokens: int
    object: Literal["response.input_tokens"] = "response.input_tokens"


class FlatToolOut(msgspec.Struct, kw_only=True, tag_field="type", tag="function"):
    """A tool as the request described it."""

    name: str
    description: str | None
    parameters: dict[str, Any]
    strict: bool


class ChosenToolOut(msgspec.Struct, kw_only=True, tag_field="type", tag="function"):
    """The function that had to be called."""

    name: str


class CachedInput(msgspec.Struct, kw_only=True):
    """Tokens of the input that were not read again, and those that were and are kept."""

    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(msgspec.Struct, kw_only=True):
    """This model does not think where nobody reads."""

    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct, kw_only=True):
    """What a response cost, in tokens."""

    input_tokens: int
    input_tokens_details: CachedInput
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ResponseFailure(msgspec.Struct, kw_only=True):
    """Why a response failed."""

    code: str
    message: str


class Incomplete(msgspec.Struct, kw_only=True):
    """Why a response is not whole."""

    reason: Literal["max_output_tokens"]


class ConversationOut(msgspec.Struct, kw_only=True):
    """The session that the response belongs to."""

    id: str


class ResponseObject(msgspec.Struct, kw_only=True):
    """A response of /v1/responses."""

    id: str
    created_at: int
    status: ResponseStatus
    model: str
    output: list[OutputItem]
    error: ResponseFailure | None
    incomplete_details: Incomplete | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: str | None
    conversation: ConversationOut | None
    prompt_cache_key: str | None
    store: bool
    temperature: float | None
    text: dict[str, Any]
    tool_choice: Literal["none", "auto", "required"] | ChosenToolOut
    tools: list[FlatToolOut]
    top_logprobs: int | None
    top_p: float | None
    usage: ResponseUsage | None
    object: Literal["response"] = "response"
    truncation: Literal["disabled"] = "disabled"
    griffin: Extras | UnsetType = UNSET


def response_object(
    head: Head,
    request: ResponseRequest,
    output: Sequence[OutputItem] = (),
    *,
    status: ResponseStatus = "in_progress",
    used: Usage | None = None,
    error: ApiError | None = None,
    extras: Extras | None = None,
) -> ResponseObject:
    """Make the response object in any of its states.

    head: its id begins with "resp_". "incomplete" says that the answer met max_output_tokens.
          error: why a
    "failed" one did. What the request did not set is null where the server's defaults decide.
    """
    sampling = request.sampling
    return ResponseObject(
        id=head.id,
        created_at=head.created,
        status=status,
        model=head.model,
        output=list(output),
        error=None
        if error is None
        else ResponseFailure(code="server_error", message=error.message),
        incomplete_details=Incomplete(reason="max_output_tokens")
        if status == "incomplete"
        else None,
        instructions=request.instructions,
        max_output_tokens=sampling.get("max_tokens"),
        metadata=request.metadata,
        parallel_tool_calls=request.parallel_tool_calls,
        previous_response_id=request.previous_response_id,
        conversation=None
        if request.conversation is None
        else ConversationOut(id=request.conversation),
        prompt_cache_key=request.prompt_cache_key,
        store=request.store,
        temperature=sampling.get("temperature"),
        text={"format": _format(request)},
        tool_choice=_choice(request.tool_choice),
        tools=[
            FlatToolOut(
                name=tool.name,
                description=tool.description or None,
                parameters=tool.parameters,
                strict=tool.strict,
            )
            for tool in request.tools or ()
        ],
        top_logprobs=sampling.get("logprobs"),
        top_p=sampling.get("top_p"),
        usage=None if used is None else response_usage(used),
        griffin=UNSET if extras is None else extras,
    )


def output_message(
    text: str, tokens: Sequence[Scored] | None = None, *, whole: bool = True, id: str | None = None
) -> OutputMessage:
    """Make the item for what the model said. whole: False if it met max_output_tokens."""
    part = OutputText(text=text, logprobs=token_logprobs(tokens or ()))
    return OutputMessage(
        id=id or new_id("msg_"), content=[part], status="completed" if whole else "incomplete"
    )


def output_call(call: ToolCall, *, whole: bool = True, id: str | None = None) -> OutputCall:
    """Make the item for a call. call.id becomes its `call_id`; `id` is the item's own."""
    return OutputCall(
        id=id or new_id("fc_"),
        call_id=call.id,
        name=call.name,
        arguments=call.arguments,
        status="completed" if whole else "incomplete",
    )


def response_usage(used: Usage) -> ResponseUsage:
    """Return the usage in the words of this endpoint."""
    return ResponseUsage(
        input_tokens=used.prompt_tokens,
        input_tokens_details=CachedInput(
            cached_tokens=used.prompt_tokens_details.cached_tokens,
            cache_write_tokens=used.prompt_tokens_details.cache_write_tokens,
        ),
        output_tokens=used.completion_tokens,
        output_tokens_details=OutputDetails(),
        total_tokens=used.total_tokens,
    )


def _format(request: ResponseRequest) -> dict[str, Any]:
    form = None if isinstance(request.format, TextFormat) else request.format
    if form is None:
        return {"type": "text"}
    if form.schema is None:
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "name": form.name or "answer",
        "schema": form.schema,
        "strict": form.strict,
    }


def _choice(choice: ToolChoice) -> Literal["none", "auto", "required"] | ChosenToolOut:
    return choice.mode if choice.name is None else ChosenToolOut(name=choice.name)
