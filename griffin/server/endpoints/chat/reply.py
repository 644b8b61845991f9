"""/v1/chat/completions: the answer, whole or in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from griffin.server.protocol.messages import ToolCall
from griffin.server.protocol.reply import (
    Extras,
    FinishReason,
    Head,
    Scored,
    TokenLogprob,
    Usage,
    token_logprobs,
)


class FunctionOut(msgspec.Struct, kw_only=True):
    """A function's name and its arguments, JSON in a string."""

    name: str
    arguments: str


class ToolCallOut(msgspec.Struct, kw_only=True):
    """A call that the model makes."""

    id: str
    function: FunctionOut
    type: Literal["function"] = "function"


class MessageOut(msgspec.Struct, kw_only=True):
    """The assistant's message."""

    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: str | None = None
    tool_calls: list[ToolCallOut] | UnsetType = UNSET


class ChatLogprobs(msgspec.Struct, kw_only=True):
    """Every token of the content."""

    content: list[TokenLogprob]
    refusal: None = None


class ChatChoice(msgspec.Struct, kw_only=True):
    """One of the `n` answers."""

    index: int
    message: MessageOut
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(msgspec.Struct, kw_only=True):
    """The answer of /v1/chat/completions."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"
    griffin: Extras | UnsetType = UNSET


class FunctionDelta(msgspec.Struct, kw_only=True):
    """More of a call's arguments; its name only once."""

    name: str | UnsetType = UNSET
    arguments: str = ""


class ToolCallDelta(msgspec.Struct, kw_only=True):
    """More of a call; id and type only once."""

    index: int
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class Delta(msgspec.Struct, kw_only=True):
    """What a chunk adds to a message."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


class ChunkChoice(msgspec.Struct, kw_only=True):
    """What a chunk adds to one of the answers."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None


class ChatChunk(msgspec.Struct, kw_only=True):
    """An event of a streamed chat."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    usage: Usage | UnsetType | None = UNSET
    griffin: Extras | UnsetType = UNSET


@dataclass(frozen=True, kw_only=True)
class ChatAnswer:
    """One finished answer. text: None where there are only calls. tokens: None if not asked for."""

    text: str | None
    finish_reason: FinishReason
    tokens: Sequence[Scored] | None = None
    tool_calls: Sequence[ToolCall] = ()


def chat_completion(
    head: Head, answers: Sequence[ChatAnswer], used: Usage, extras: Extras | None = None
) -> ChatCompletion:
    """Make the body of a chat that is not streamed."""
    return ChatCompletion(
        id=head.id,
        created=head.created,
        model=head.model,
        system_fingerprint=head.system_fingerprint,
        choices=[_choice(index, answer) for index, answer in enumerate(answers)],
        usage=used,
        griffin=UNSET if extras is None else extras,
    )


class ChatChunks:
    """Make the chunks of one streamed chat.

    head: what all of them share.
    include_usage: the client asked for a last chunk with the usage; all others then carry
                   `usage: null`.

    For each choice: `role`, then any number of `text` and `call`, then `finish`; `usage` once after
    all.
    """

    def __init__(self, head: Head, include_usage: bool) -> None:
        self.head = head
        self.include_usage = include_usage

    def role(self, index: int = 0) -> ChatChunk:
        """Begin an answer."""
        return self._chunk(ChunkChoice(index=index, delta=Delta(role="assistant", content="")))

    def text(self, text: str, tokens: Sequence[Scored] | None = None, index: int = 0) -> ChatChunk:
        """Add text, and the tokens that became final with it if log-probabilities were asked
        for."""
        return self._chunk(
            ChunkChoice(index=index, delta=Delta(content=text), logprobs=_logprobs(tokens))
        )

    def call_begin(self, call: int, id: str, name: str, index: int = 0) -> ChatChunk:
        """Begin the call number `call` of an answer."""
        delta = ToolCallDelta(index=call, id=id, type="function", function=FunctionDelta(name=name))
        return self._chunk(ChunkChoice(index=index, delta=Delta(tool_calls=[delta])))

    def call_more(self, call: int, arguments: str, index: int = 0) -> ChatChunk:
        """Add to the arguments of a call."""
        delta = ToolCallDelta(index=call, function=FunctionDelta(arguments=arguments))
        return self._chunk(ChunkChoice(index=index, delta=Delta(tool_calls=[delta])))

    def finish(self, reason: FinishReason, index: int = 0) -> ChatChunk:
        """End an answer."""
        return self._chunk(ChunkChoice(index=index, delta=Delta(), finish_reason=reason))

    def usage(self, used: Usage, extras: Extras | None = None) -> ChatChunk:
        """End the stream with what it cost. Only for clients that asked: it has no choices, and
        some fall."""
        chunk = self._chunk()
        chunk.usage = used
        chunk.griffin = UNSET if extras is None else extras
        return chunk

    def _chunk(self, *choices: ChunkChoice) -> ChatChunk:
        return ChatChunk(
            id=self.head.id,
            created=self.head.created,
            model=self.head.model,
            system_fingerprint=self.head.system_fingerprint,
            choices=list(choices),
            usage=None if self.include_usage else UNSET,
        )


def _choice(index: int, answer: ChatAnswer) -> ChatChoice:
    calls = [
        ToolCallOut(id=call.id, function=FunctionOut(name=call.name, arguments=call.arguments))
        for call in answer.tool_calls
    ]
    return ChatChoice(
        index=index,
        message=MessageOut(content=answer.text, tool_calls=calls or UNSET),
        logprobs=_logprobs(answer.tokens),
        finish_reason=answer.finish_reason,
    )


def _logprobs(tokens: Sequence[Scored] | None) -> ChatLogprobs | None:
    return None if tokens is None else ChatLogprobs(content=token_logprobs(tokens))
