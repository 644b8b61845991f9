"""/v1/messages: the request, read into what a chat is asked."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from griffin.server.endpoints.chat.body import ChatRequest
from griffin.server.errors import INVALID, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol.body import read_body
from griffin.server.protocol.bounds import Id, ModelName, check_most, needed
from griffin.server.protocol.formats import FormatBody
from griffin.server.protocol.messages import Content, Message, Part, ToolCall, read_part
from griffin.server.protocol.policy import HARMLESS, VENDORS, Policy, Refusal
from griffin.server.protocol.reply import encode
from griffin.server.protocol.sampling import (
    GeneratingBody,
    Most,
    most_tokens,
    read_stop,
    sampling_arguments,
)
from griffin.server.protocol.structured import read_form
from griffin.server.protocol.tools import (
    ChosenTool,
    FunctionBody,
    FunctionName,
    ToolChoiceBody,
    check_own,
    read_tools,
)

_BLOCK = "messages[].content[]"

POLICY = Policy(
    ignored=HARMLESS
    | {
        *("metadata", "cache_control", "inference_geo", "speed", "diagnostics"),
        *("user_profile_id", "workspace_id", "output_config.effort"),
        *("thinking.budget_tokens", "thinking.display"),
        *("system[].cache_control", "system[].citations"),
        *(f"{_BLOCK}.{field}" for field in ("cache_control", "citations", "caller")),
        # Of blocks that are passed over or refused whole, by their type.
        *(f"{_BLOCK}.{field}" for field in ("thinking", "signature", "data", "source")),
        *(f"{_BLOCK}.content[].cache_control", f"{_BLOCK}.content[].source"),
        *("tools[].cache_control", "tools[].eager_input_streaming"),
    },
    refused=VENDORS
    | {
        "n": Refusal("a message has one answer; use /v1/chat/completions", (1,)),
        "logprobs": Refusal("use /v1/chat/completions", (False,)),
        "response_format": Refusal("use output_config.format"),
        "output_format": Refusal("call it output_config.format"),
        "max_completion_tokens": Refusal("call it max_tokens"),
        "mcp_servers": Refusal("this server connects to no others", ([],)),
        "container": Refusal("this server runs no code"),
        "tools[].function": Refusal("send name, description and input_schema"),
        "tools[].parameters": Refusal("call it input_schema"),
        "messages[].tool_calls": Refusal("send blocks of type tool_use", ([],)),
    },
)


class BlockBody(Part, kw_only=True):
    """A block of a message's content: text, a call, or a call's result."""

    id: Id | None = None
    name: Id | None = None
    input: dict[str, Any] | None = None
    tool_use_id: Id | None = None
    content: Content | None = None
    is_error: bool | None = None


class TurnBody(msgspec.Struct, kw_only=True):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[BlockBody]


class InputToolBody(FunctionBody, kw_only=True):
    """A tool: a function, whose schema is called `input_schema`. type: "custom", or nothing."""

    schema_field: ClassVar[str] = "input_schema"

    type: Annotated[str, Meta(max_length=64)] | None = None
    parameters: dict[str, Any] | None = msgspec.field(name="input_schema", default=None)


class ToolUseBody(msgspec.Struct, kw_only=True):
    """`tool_choice`: whether a tool is called, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: FunctionName | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingBody(msgspec.Struct, kw_only=True):
    """`thinking`: anything but "disabled" is passed over, and named: the model has none."""

    type: Annotated[str, Meta(max_length=64)]


class OutputConfigBody(msgspec.Struct, kw_only=True):
    """`output_config`: the JSON schema that the answer must fit."""

    format: FormatBody | None = None


class MessagesBody(GeneratingBody, kw_only=True):
    """The body of POST /v1/messages, and of /v1/messages/count_tokens.

    An assistant's last message is how the answer begins.
    """

    messages: Annotated[list[TurnBody], Meta(min_length=1)]
    model: ModelName | None = None
    max_tokens: Most | None = None
    system: str | list[Part] | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    tools: list[InputToolBody] | None = None
    tool_choice: ToolUseBody | None = None
    thinking: ThinkingBody | None = None
    output_config: OutputConfigBody | None = None


def parse_messages(body: bytes, limits: Limits) -> ChatRequest:
    """Read the body of POST /v1/messages; ApiError for anything that cannot be done as asked."""
    read, ignored = read_body(body, MessagesBody, POLICY, limits)
    for index, tool in enumerate(read.tools or ()):
        check_own(index, tool.type, (None, "custom"), "name, description and input_schema")
    tools, choice = read_tools(read.tools, _choice(read.tool_choice), limits)
    sampling = sampling_arguments(read, limits)
    if read.stop_sequences:
        if read.stop:
            raise ApiError(INVALID, "stop and stop_sequences mean the same; send one", "stop")
        sampling["stop"] = read_stop(read.stop_sequences, limits, "stop_sequences")
    own = {"max_tokens": read.max_tokens}
    sampling["max_tokens"], clamped = most_tokens(read, own, limits, limits.default_max_tokens)
    config = read.output_config
    form, beside = read_form(read, config and config.format, limits, "output_config.format")
    thinks = read.thinking is not None and read.thinking.type != "disabled"
    several = read.tool_choice is None or not read.tool_choice.disable_parallel_tool_use
    return ChatRequest(
        model=read.model,
        messages=_messages(read, limits),
        sampling=sampling,
        n=1,
        stream=bool(read.stream),
        include_usage=False,
        format=form,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=several,
        session_id=read.session_id,
        state=read.state,
        ignored=(*ignored, *clamped, *beside, *(("thinking",) if thinks else ())),
    )


def _messages(read: MessagesBody, limits: Limits) -> tuple[Message, ...]:
    count = len(read.messages)
    check_most(count, f"messages has {count} entries", limits, "max_messages", "messages")
    messages = [one for n, turn in enumerate(read.messages) for one in _turn(turn, n)]
    if read.system:
        messages.insert(0, Message("system", _paragraphs(read.system, "system")))
    return tuple(messages)


def _turn(turn: TurnBody, index: int) -> list[Message]:
    """Return one message as those that it is here: each result of a tool is one of its own."""
    param = f"messages[{index}].content"
    if isinstance(turn.content, str):
        return [Message(turn.role, turn.content)]
    made: list[Message] = []
    texts: list[str] = []
    calls: list[ToolCall] = []

    def close() -> None:
        if texts or calls:
            made.append(Message(turn.role, "\n\n".join(texts), tool_calls=tuple(calls)))
            texts.clear()
            calls.clear()

    for number, block in enumerate(turn.content):
        where = f"{param}[{number}]"
        if block.type == "tool_use" and turn.role == "assistant":
            id, name = needed(block.id, f"{where}.id"), needed(block.name, f"{where}.name")
            arguments = encode(needed(block.input, f"{where}.input")).decode()
            calls.append(ToolCall(id, name, arguments))
        elif block.type == "tool_result" and turn.role == "user":
            close()
            made.append(_result(block, where))
        # This model has none; what another one thought says nothing here.
        elif block.type not in ("thinking", "redacted_thinking"):
            if calls:
                close()
            texts.append(read_part(block, where))
    close()
    return made or [Message(turn.role, "")]


def _result(block: BlockBody, where: str) -> Message:
    id = needed(block.tool_use_id, f"{where}.tool_use_id")
    text = "" if block.content is None else _paragraphs(block.content, f"{where}.content")
    return Message("tool", f"Error: {text}" if block.is_error else text, tool_call_id=id)


def _paragraphs(content: Content, param: str) -> str:
    """Return a content's text, with a blank line between its blocks."""
    if isinstance(content, str):
        return content
    return "\n\n".join(read_part(part, f"{param}[{n}]") for n, part in enumerate(content))


def _choice(choice: ToolUseBody | None) -> ToolChoiceBody | None:
    if choice is None:
        return None
    if choice.type == "tool":
        name = needed(choice.name, "tool_choice.name")
        return ChosenTool(type="function", name=name)
    return choice.type
