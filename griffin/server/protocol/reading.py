"""A text, ids or a conversation that is read without an answer: into a session, or a state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from griffin.server.errors import INVALID, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol.bounds import TokenId, check_ids, check_most
from griffin.server.protocol.messages import Message, MessageBody, read_messages


class AppendBody(msgspec.Struct, kw_only=True):
    """POST /v1/sessions/{name}/append: exactly one of text, tokens and messages."""

    text: Annotated[str, Meta(min_length=1)] | None = None
    tokens: Annotated[list[TokenId], Meta(min_length=1)] | None = None
    messages: Annotated[list[MessageBody], Meta(min_length=1)] | None = None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Something to read: exactly one of the three is not None."""

    text: str | None = None
    tokens: tuple[int, ...] | None = None
    messages: tuple[Message, ...] | None = None


def reading_of(body: AppendBody, limits: Limits) -> Reading | None:
    """Return what is to be read, None if nothing was given; ApiError for more than one thing."""
    given = [name for name in ("text", "tokens", "messages") if getattr(body, name) is not None]
    if not given:
        return None
    if len(given) > 1:
        raise ApiError(INVALID, f"{' and '.join(given)} are given; send one", given[1])
    if body.tokens is not None:
        count = len(body.tokens)
        check_most(count, f"tokens has {count} ids", limits, "max_prompt_tokens", "tokens")
        check_ids(body.tokens, limits, "tokens")
        return Reading(tokens=tuple(body.tokens))
    if body.messages is not None:
        return Reading(messages=read_messages(body.messages, limits))
    return Reading(text=body.text)
