"""/v1/chat/completions: the answer, whole or in chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
from griffin.server.protocol.telling import PromptLogprobs, PromptProgress


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
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletion(msgspec.Struct, kw_only=True):
    """The answer of /v1/chat/completions."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"
    prompt_token_ids: list[int] | UnsetType | None = UNSET
    prompt_logprobs: PromptLogprobs | UnsetType = UNSET  # or the same as JSON
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
    token_ids: list[int] | UnsetType = UNSET


class ChatChunk(msgspec.Struct, kw_only=True):
    """An event of a streamed chat."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    usage: Usage | UnsetType | None = UNSET
    prompt_token_ids: list[int] | UnsetType | None = UNSET
    prompt_progress: PromptProgress | UnsetType = UNSET
    griffin: Extras | UnsetType = UNSET


@dataclass(frozen=True, kw_only=True)
class ChatAnswer:
    """One finished answer. text: None where there are only calls. tokens, ids: None if not asked
    for."""

    text: str | None
    finish_reason: FinishReason
    tokens: Sequence[Scored] | None = None
    tool_calls: Sequence[ToolCall] = ()
    ids: Sequence[int] | None = None


def chat_completion(
    head: Head,
    answers: Sequence[ChatAnswer],
    used: Usage,
    extras: Extras | None = None,
    prompt: Mapping[str, Any] | None = None,
) -> ChatCompletion:
    """Make the body of a chat that is not streamed. prompt: its `prompt_...` fields."""
    return ChatCompletion(
        id=head.id,
        created=head.created,
        model=head.model,
        system_fingerprint=head.system_fingerprint,
        choices=[_choice(index, answer) for index, answer in enumerate(answers)],
        usage=used,
        griffin=UNSET if extras is None else extras,
        **(prompt or {}),
    )


class ChatChunks:
    """Make the chunks of one streamed chat.

    head: what all of them share.
    include_usage: the client asked for a last chunk with the usage; all others then carry
                   `usage: null`.

    so_far:        what `usage` says in every chunk, if each is to tell it.
    ids:           those of the answer that go with the next chunk.

    For each choice: `role`, then any number of `text` and `call`, then `finish`; `usage` once after
    all.
    """

    def __init__(self, head: Head, include_usage: bool) -> None:
        self.head = head
        self.so_far: Usage | UnsetType | None = None if include_usage else UNSET
        self.ids: list[int] = []

    def role(self, index: int = 0, prompt_ids: list[int] | UnsetType | None = UNSET) -> ChatChunk:
        """Begin an answer. prompt_ids: of the prompt, if they are told and known."""
        chunk = self._chunk(ChunkChoice(index=index, delta=Delta(role="assistant", content="")))
        chunk.prompt_token_ids = prompt_ids
        return chunk

    def progress(self, read: PromptProgress) -> ChatChunk:
        """Tell how much of the prompt is read."""
        chunk = self._chunk(ChunkChoice(index=0, delta=Delta()))
        chunk.prompt_progress = read
        return chunk

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
        if choices and self.ids:
            choices[0].token_ids, self.ids = self.ids, []
        return ChatChunk(
            id=self.head.id,
            created=self.head.created,
            model=self.head.model,
            system_fingerprint=self.head.system_fingerprint,
            choices=list(choices),
            usage=self.so_far,
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
        token_ids=UNSET if answer.ids is None else list(answer.ids),
    )


def _logprobs(tokens: Sequence[Scored] | None) -> ChatLogprobs | None:
    return None if tokens is None else ChatLogprobs(content=token_logprobs(tokens))
