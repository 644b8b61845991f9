"""/tokenize, /detokenize and /apply-template: the requests, in the dialects of vLLM and
llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from griffin.server.errors import INVALID, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol import policy
from griffin.server.protocol.body import read_body
from griffin.server.protocol.bounds import ModelName, TokenId, check_ids, check_most
from griffin.server.protocol.messages import (
    Message,
    MessageBody,
    check_end,
    read_messages,
)


class TokenizeBody(msgspec.Struct, kw_only=True):
    """POST /tokenize: exactly one of prompt (vLLM), content (llama.cpp) and messages."""

    prompt: str | None = None
    content: str | None = None
    messages: list[MessageBody] | None = None
    model: ModelName | None = None
    add_special_tokens: bool | None = None
    add_special: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    return_token_strs: bool | None = None
    with_pieces: bool | None = None


class DetokenizeBody(msgspec.Struct, kw_only=True):
    """POST /detokenize."""

    tokens: list[TokenId]
    model: ModelName | None = None


class TemplateBody(msgspec.Struct, kw_only=True):
    """POST /apply-template."""

    messages: list[MessageBody]
    model: ModelName | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


@dataclass(frozen=True, kw_only=True)
class TokenizeRequest:
    """A text, or a conversation, to become ids; one of `text` and `messages` is None.

    bos: put BOS first (a conversation always has it). pieces: also give each token's text.
    """

    model: str | None
    text: str | None
    messages: tuple[Message, ...] | None
    bos: bool
    add_generation_prompt: bool
    pieces: bool
    ignored: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DetokenizeRequest:
    """Ids to become text."""

    model: str | None
    tokens: tuple[int, ...]
    ignored: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TemplateRequest:
    """A conversation to become the text that the model reads."""

    model: str | None
    messages: tuple[Message, ...]
    add_generation_prompt: bool
    ignored: tuple[str, ...]


def parse_tokenize(body: bytes, limits: Limits) -> TokenizeRequest:
    """Read the body of POST /tokenize.

    BOS comes first unless `add_special_tokens` is false (vLLM's default is true), or the text came
    as `content` and `add_special` is not true (llama.cpp's default is false).
    """
    read, ignored = read_body(body, TokenizeBody, policy.OWN, limits)
    given = [name for name in ("prompt", "content", "messages") if getattr(read, name) is not None]
    if len(given) != 1:
        raise ApiError(INVALID, "exactly one of prompt, content and messages is needed", "prompt")
    messages, open_ = (), True
    if read.messages is not None:
        messages, open_ = _conversation(read.messages, read, limits)
    special = read.add_special_tokens if read.add_special_tokens is not None else read.add_special
    return TokenizeRequest(
        model=read.model,
        text=read.prompt if read.prompt is not None else read.content,
        messages=messages or None,
        bos=special if special is not None else read.content is None,
        add_generation_prompt=open_,
        pieces=bool(read.return_token_strs or read.with_pieces),
        ignored=ignored,
    )


def parse_detokenize(body: bytes, limits: Limits) -> DetokenizeRequest:
    """Read the body of POST /detokenize."""
    read, ignored = read_body(body, DetokenizeBody, policy.OWN, limits)
    check_most(
        len(read.tokens),
        f"tokens has {len(read.tokens)} ids",
        limits,
        "max_prompt_tokens",
        "tokens",
    )
    check_ids(read.tokens, limits, "tokens")
    return DetokenizeRequest(model=read.model, tokens=tuple(read.tokens), ignored=ignored)


def parse_template(body: bytes, limits: Limits) -> TemplateRequest:
    """Read the body of POST /apply-template."""
    read, ignored = read_body(body, TemplateBody, policy.OWN, limits)
    messages, open_ = _conversation(read.messages, read, limits)
    return TemplateRequest(
        model=read.model, messages=messages, add_generation_prompt=open_, ignored=ignored
    )


def _conversation(
    bodies: Sequence[MessageBody], read: TokenizeBody | TemplateBody, limits: Limits
) -> tuple[tuple[Message, ...], bool]:
    """Return the messages, and whether an answer is to follow them."""
    messages = read_messages(bodies, limits)
    if read.add_generation_prompt is False and not read.continue_final_message:
        return messages, False
    check_end(messages, read.continue_final_message, read.add_generation_prompt)
    return messages, True
