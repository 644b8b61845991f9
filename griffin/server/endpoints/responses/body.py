"""/v1/responses: the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from griffin.server.errors import INVALID, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol.body import read_body
from griffin.server.protocol.bounds import CountOrZero, Id, Metadata, ModelName, Name, check_most
from griffin.server.protocol.formats import TextBody
from griffin.server.protocol.identity import Identity, identify
from griffin.server.protocol.items import (
    ItemBody,
    PlainItem,
    ignored_in,
    messages_of,
    read_items,
    references,
    refused_in,
    text_item,
)
from griffin.server.protocol.messages import Message
from griffin.server.protocol.policy import (
    CARRIED,
    HARMLESS,
    TEXT_ONLY,
    VENDORS,
    Policy,
    Refusal,
)
from griffin.server.protocol.sampling import GeneratingBody, Most, most_tokens, sampling_arguments
from griffin.server.protocol.structured import AnswerFormat, read_form
from griffin.server.protocol.tools import FlatToolBody, Tool, ToolChoice, ToolChoiceBody, read_tools

_LOGPROBS = "message.output_text.logprobs"

POLICY = Policy(
    ignored=HARMLESS
    | {
        *("reasoning", "truncation", "max_tool_calls", "text.verbosity", "context_management"),
        *("background_options", "stream_options"),
    }
    | ignored_in("input"),
    refused=VENDORS
    | CARRIED
    | refused_in("input")
    | {
        "prompt_logprobs": Refusal("use /v1/chat/completions"),
        "truncate_prompt_tokens": Refusal("use /v1/chat/completions", (-1,)),
        "background": Refusal("answers are given while one waits; ask with stream", (False,)),
        "tools[].tools": Refusal("there are no namespaces; send the functions in it as tools"),
        "prompt": Refusal("there are no stored prompts; send instructions and input"),
        "image": TEXT_ONLY,
        "n": Refusal("a response has one answer; use /v1/chat/completions", (1,)),
        "messages": Refusal("use input, or /v1/chat/completions"),
        "max_tokens": Refusal("call it max_output_tokens"),
        "response_format": Refusal("use text.format"),
    },
)


class ConversationBody(msgspec.Struct, kw_only=True):
    """`conversation` written as an object."""

    id: Name


class ResponseBody(GeneratingBody, kw_only=True):
    """The body of POST /v1/responses."""

    input: str | Annotated[list[ItemBody], Meta(min_length=1)]
    model: ModelName | None = None
    instructions: str | None = None
    max_output_tokens: Most | None = None
    previous_response_id: Id | None = None
    conversation: Name | ConversationBody | None = None
    store: bool | None = None
    stream: bool | None = None
    include: list[Annotated[str, Meta(max_length=128)]] | None = None
    top_logprobs: CountOrZero | None = None
    text: TextBody | None = None
    tools: list[FlatToolBody] | None = None
    tool_choice: ToolChoiceBody | None = None
    parallel_tool_calls: bool | None = None
    metadata: Metadata | None = None


@dataclass(frozen=True, kw_only=True)
class ResponseRequest:
    """A response that is ready to run.

    items:        what is new, references to what is kept among them until they are looked up.
    instructions: the system message, which an earlier response's does not outlive.
    previous_response_id, conversation, session_id: what they follow
                  (`identity`).
    sampling:     keyword arguments of SamplingParams; "logprobs" is in it if they were asked for.
    store:        whether a later request may go on from this response.
    metadata:     given back as it came.
    The rest is as in ChatRequest.
    """

    model: str | None
    items: tuple[PlainItem, ...]
    instructions: str | None
    sampling: dict[str, Any]
    stream: bool
    store: bool
    format: AnswerFormat | None
    tools: tuple[Tool, ...] | None
    tool_choice: ToolChoice
    parallel_tool_calls: bool
    previous_response_id: str | None
    conversation: str | None
    session_id: str | None
    state: str | None
    prompt_cache_key: str | None
    metadata: dict[str, str]
    ignored: tuple[str, ...]

    @property
    def input(self) -> tuple[Message, ...]:
        """The new messages."""
        return messages_of(self.items, "input")

    def identity(self, headers: Mapping[str, str]) -> Identity:
        """Return which conversation this goes on with; see `identify`."""
        return identify(
            headers,
            session_id=self.session_id,
            previous_response_id=self.previous_response_id,
            conversation=self.conversation,
        )


def parse_response(body: bytes, limits: Limits) -> ResponseRequest:
    """Read the body of POST /v1/responses; ApiError for anything that cannot be done as asked."""
    read, ignored = read_body(body, ResponseBody, POLICY, limits)
    conversation = (
        read.conversation.id
        if isinstance(read.conversation, ConversationBody)
        else read.conversation
    )
    if conversation is not None and read.previous_response_id is not None:
        raise ApiError(
            INVALID,
            "conversation and previous_response_id both say what to go on from; send one",
            "conversation",
        )
    tools, choice = read_tools(read.tools, read.tool_choice, limits)
    sampling = sampling_arguments(read, limits)
    own = {"max_output_tokens": read.max_output_tokens}
    most, clamped = most_tokens(read, own, limits, limits.default_max_tokens)
    sampling["max_tokens"] = most
    form, beside = read_form(read, read.text.format if read.text else None, limits, "text.format")
    ignored = (*ignored, *clamped, *beside)
    include = read.include or []
    if read.top_logprobs is not None or _LOGPROBS in include:
        top = read.top_logprobs or 0
        check_most(top, f"top_logprobs is {top}", limits, "max_logprobs", "top_logprobs")
        sampling["logprobs"] = top
    if any(what != _LOGPROBS for what in include):
        ignored = (*ignored, "include[]")
    return ResponseRequest(
        model=read.model,
        items=_input(read.input, limits),
        instructions=read.instructions,
        sampling=sampling,
        stream=bool(read.stream),
        store=read.store is not False,
        format=form,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=read.parallel_tool_calls is not False,
        previous_response_id=read.previous_response_id,
        conversation=conversation,
        session_id=read.session_id,
        state=read.state,
        prompt_cache_key=read.prompt_cache_key,
        metadata=read.metadata or {},
        ignored=ignored,
    )


def _input(items: str | Sequence[ItemBody], limits: Limits) -> tuple[PlainItem, ...]:
    if isinstance(items, str):
        return (text_item(items),)
    read = read_items(items, limits, "input")
    if not references(read):
        messages_of(read, "input")  # what cannot be one is told now
    return read
