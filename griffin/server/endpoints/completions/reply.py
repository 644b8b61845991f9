"""/v1/completions: the answer, whole or in chunks, with the log-probabilities that evaluations
read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from griffin.server.protocol.reply import Extras, Head, Scored, Usage, clamp, encode
from griffin.server.protocol.telling import PromptLogprobs, PromptProgress

CompletionEnd = Literal["stop", "length"]


class CompletionLogprobs(msgspec.Struct, kw_only=True):
    """Tokens side by side. The first token of an echoed prompt has null for its two numbers.

    tokens:      a token whose bytes are no text alone is written "bytes:\\xe2\\x80".
    text_offset: where each begins among the characters of the text.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class WrittenLogprobs(NamedTuple):
    """Some tokens' CompletionLogprobs as JSON, each list without its brackets.

    A log-probability takes a tenth of the memory that it takes in Python, and is not written on the
    event loop.
    """

    tokens: bytes
    token_logprobs: bytes
    top_logprobs: bytes
    text_offset: bytes


class CompletionChoice(msgspec.Struct, kw_only=True):
    """One answer to one prompt. In a stream: what is added to it."""

    text: str
    index: int
    logprobs: CompletionLogprobs | None  # or the same as JSON, where it is written already
    finish_reason: CompletionEnd | None
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
    prompt_logprobs: PromptLogprobs | UnsetType = UNSET  # or the same as JSON


class Completion(msgspec.Struct, kw_only=True):
    """The answer of /v1/completions, and every event of a streamed one."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    object: Literal["text_completion"] = "text_completion"
    usage: Usage | UnsetType | None = UNSET
    prompt_progress: PromptProgress | UnsetType = UNSET
    griffin: Extras | UnsetType = UNSET


@dataclass(frozen=True, kw_only=True)
class CompletionAnswer:
    """One finished answer, the prompt before it if it is echoed: in `text` and in `tokens`.

    tokens: None if log-probabilities were not asked for. echoed: those of the prompt, before them.
    ids: of the answer, and `prompt` what the choice says of the prompt's; if they are to be told.
    """

    text: str
    finish_reason: CompletionEnd
    tokens: Sequence[Scored] | None = None
    echoed: Sequence[WrittenLogprobs] = ()
    ids: Sequence[int] | None = None
    prompt: Mapping[str, Any] = field(default_factory=dict)


def completion(
    head: Head, answers: Sequence[CompletionAnswer], used: Usage, extras: Extras | None = None
) -> Completion:
    """Make the body of a completion that is not streamed; `answers` in the order of their
    indices."""
    choices = [
        CompletionChoice(
            text=answer.text,
            index=index,
            logprobs=_logprobs(answer),
            finish_reason=answer.finish_reason,
            token_ids=UNSET if answer.ids is None else list(answer.ids),
            **answer.prompt,
        )
        for index, answer in enumerate(answers)
    ]
    return _completion(head, choices, used, extras)


class CompletionChunks:
    """Make the chunks of one streamed completion: `text` as often as there is some, `finish`,
    `usage`.

    One `finish` a choice, one `usage` after all. include_usage, so_far, ids: as for chats.
    prompt_ids: of choices, each goes with its choice's next chunk.
    """

    def __init__(self, head: Head, include_usage: bool) -> None:
        self.head = head
        self.so_far: Usage | UnsetType | None = None if include_usage else UNSET
        self.ids: list[int] = []
        self.prompt_ids: dict[int, list[int]] = {}

    def text(self, text: str, tokens: Sequence[Scored] | None = None, index: int = 0) -> Completion:
        """Add text, and the tokens that became final with it if log-probabilities were asked
        for."""
        return self._chunk(text, index, completion_logprobs(tokens), None)

    def echo(self, text: str, tokens: WrittenLogprobs | None, index: int = 0) -> Completion:
        """Add a piece of an echoed prompt."""
        return self._chunk(text, index, None if tokens is None else whole_of([tokens]), None)

    def progress(self, read: PromptProgress, index: int) -> Completion:
        """Tell how much of a choice's prompt is read."""
        chunk = self._chunk("", index, None, None)
        chunk.prompt_progress = read
        return chunk

    def finish(self, reason: CompletionEnd, index: int = 0) -> Completion:
        """End an answer."""
        return self._chunk("", index, None, reason)

    def usage(self, used: Usage, extras: Extras | None = None) -> Completion:
        """End the stream with what it cost. Only for clients that asked."""
        return _completion(self.head, [], used, extras)

    def _chunk(
        self,
        text: str,
        index: int,
        logprobs: CompletionLogprobs | None,
        reason: CompletionEnd | None,
    ) -> Completion:
        choice = CompletionChoice(text=text, index=index, logprobs=logprobs, finish_reason=reason)
        if self.ids:
            choice.token_ids, self.ids = self.ids, []
        choice.prompt_token_ids = self.prompt_ids.pop(index, UNSET)
        return _completion(self.head, [choice], self.so_far, None)


def completion_logprobs(tokens: Sequence[Scored] | None) -> CompletionLogprobs | None:
    """Return tokens as /v1/completions shows them.

    The token itself is always among its `top_logprobs`, so it is the likeliest exactly if none
    there is above it: that is how lm-eval finds out whether a text is what greedy decoding gives.
    """
    if tokens is None:
        return None
    return CompletionLogprobs(
        tokens=[_written(token.text, token.bytes) for token in tokens],
        token_logprobs=[
            None if token.logprob is None else clamp(token.logprob) for token in tokens
        ],
        top_logprobs=[_top(token) for token in tokens],
        text_offset=[token.offset for token in tokens],
    )


def write_logprobs(tokens: Sequence[Scored]) -> WrittenLogprobs:
    """Return tokens as /v1/completions shows them, in JSON."""
    made = completion_logprobs(tokens)
    return WrittenLogprobs(*(encode(getattr(made, name))[1:-1] for name in WrittenLogprobs._fields))


def whole_of(written: Sequence[WrittenLogprobs]) -> CompletionLogprobs:
    """Put JSON of tokens together."""
    lists = [
        b'"%s":[%s]' % (name.encode(), b",".join(filter(None, parts)))
        for name, parts in zip(WrittenLogprobs._fields, zip(*written, strict=True), strict=True)
    ]
    whole: Any = msgspec.Raw(b"{" + b",".join(lists) + b"}")
    return whole


def _logprobs(answer: CompletionAnswer) -> CompletionLogprobs | None:
    if answer.tokens is None or not answer.echoed:
        return completion_logprobs(answer.tokens)
    return whole_of([*answer.echoed, write_logprobs(answer.tokens)])


def _top(token: Scored) -> dict[str, float] | None:
    if token.logprob is None:
        return None
    top: dict[str, float] = {}
    for other in token.alternatives:
        key = _written(other.text, other.bytes)
        top[key] = max(top.get(key, clamp(None)), clamp(other.logprob))
    own = _written(token.text, token.bytes)
    top[own] = max(top.get(own, clamp(None)), clamp(token.logprob))
    return top


def _written(text: str, bytes: bytes) -> str:
    """Return a key for a token: its text, or its bytes where the text would be U+FFFD."""
    if "\ufffd" not in text or text.encode("utf-8") == bytes:
        return text
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in bytes)


def _completion(
    head: Head,
    choices: list[CompletionChoice],
    used: Usage | UnsetType | None,
    extras: Extras | None,
) -> Completion:
    return Completion(
        id=head.id,
        created=head.created,
        model=head.model,
        system_fingerprint=head.system_fingerprint,
        choices=choices,
        usage=used,
        griffin=UNSET if extras is None else extras,
    )
