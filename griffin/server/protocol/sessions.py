"""/v1/sessions and /v1/states: the requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from griffin.server.errors import INVALID, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol import policy
from griffin.server.protocol.body import read_body, show
from griffin.server.protocol.bounds import (
    Count,
    Name,
    Title,
    TokenId,
    TurnNumber,
    check_ids,
    check_most,
)
from griffin.server.protocol.messages import Message, MessageBody, read_messages

MAX_PAGE = 1000


class SessionCreate(msgspec.Struct, kw_only=True):
    """POST /v1/sessions. name: one is made up if there is none. state: a saved state to begin
    from."""

    name: Name | None = None
    title: Title | None = None
    state: Name | None = None


class SessionChange(msgspec.Struct, kw_only=True):
    """PATCH /v1/sessions/{name}: another name, another title."""

    name: Name | None = None
    title: Title | None = None


class Fork(msgspec.Struct, kw_only=True):
    """POST /v1/sessions/{name}/fork, /v1/states/{name}/fork. at: the turn to fork after; absent:
    the last."""

    name: Name | None = None
    title: Title | None = None
    at: TurnNumber | None = None


class Rewind(msgspec.Struct, kw_only=True):
    """POST /v1/sessions/{name}/rewind. turns: how many to undo, 1 if absent; or `to`: the turn to
    go to."""

    turns: Count | None = None
    to: TurnNumber | None = None


class AppendBody(msgspec.Struct, kw_only=True):
    """POST /v1/sessions/{name}/append: exactly one of text, tokens and messages."""

    text: Annotated[str, Meta(min_length=1)] | None = None
    tokens: Annotated[list[TokenId], Meta(min_length=1)] | None = None
    messages: Annotated[list[MessageBody], Meta(min_length=1)] | None = None


class StateBody(AppendBody, kw_only=True):
    """POST /v1/states: a state by reading text, tokens or messages, or of a session as it is (at a
    turn)."""

    name: Name
    title: Title | None = None
    session: Name | None = None
    at: TurnNumber | None = None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Something to read: exactly one of the three is not None."""

    text: str | None = None
    tokens: tuple[int, ...] | None = None
    messages: tuple[Message, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class StateCreate:
    """A state to make: by `reading`, or from `session` at turn `at`; one of the two is None."""

    name: str
    title: str | None
    session: str | None
    at: int | None
    reading: Reading | None


@dataclass(frozen=True)
class Page:
    """Which part of a list to give: `limit` entries after the one named `after`, newest first if
    `newest`."""

    limit: int = 20
    after: str | None = None
    newest: bool = True


def parse_session_create(body: bytes, limits: Limits) -> tuple[SessionCreate, tuple[str, ...]]:
    """Read the body of POST /v1/sessions; an empty one asks for nothing. Also returns the ignored
    fields."""
    return read_body(body or b"{}", SessionCreate, policy.OWN, limits)


def parse_session_change(body: bytes, limits: Limits) -> tuple[SessionChange, tuple[str, ...]]:
    """Read the body of PATCH /v1/sessions/{name}. Also returns the ignored fields."""
    read, ignored = read_body(body, SessionChange, policy.OWN, limits)
    if read.name is None and read.title is None:
        raise ApiError(
            INVALID, "neither name nor title is given; there is nothing to change", "name"
        )
    return read, ignored


def parse_fork(body: bytes, limits: Limits) -> tuple[Fork, tuple[str, ...]]:
    """Read the body of a fork; an empty one asks for nothing. Also returns the ignored fields."""
    return read_body(body or b"{}", Fork, policy.OWN, limits)


def parse_rewind(body: bytes, limits: Limits) -> tuple[Rewind, tuple[str, ...]]:
    """Read the body of a rewind; an empty one undoes one turn. Also returns the ignored fields.

    In what is returned exactly one of `turns` and `to` is set.
    """
    read, ignored = read_body(body or b"{}", Rewind, policy.OWN, limits)
    if read.turns is not None and read.to is not None:
        raise ApiError(INVALID, "turns and to both say where to go; send one", "to")
    return (Rewind(turns=1) if read.turns is None and read.to is None else read), ignored


def parse_append(body: bytes, limits: Limits) -> tuple[Reading, tuple[str, ...]]:
    """Read the body of an append. Also returns the ignored fields."""
    read, ignored = read_body(body, AppendBody, policy.OWN, limits)
    reading = _reading(read, limits)
    if reading is None:
        raise ApiError(INVALID, "one of text, tokens and messages is needed", "text")
    return reading, ignored


def parse_state_create(body: bytes, limits: Limits) -> tuple[StateCreate, tuple[str, ...]]:
    """Read the body of POST /v1/states. Also returns the ignored fields."""
    read, ignored = read_body(body, StateBody, policy.OWN, limits)
    reading = _reading(read, limits)
    if (reading is None) is (read.session is None):
        raise ApiError(
            INVALID, "exactly one of session, text, tokens and messages is needed", "session"
        )
    if read.at is not None and read.session is None:
        raise ApiError(INVALID, "at names a turn of a session, but session is missing", "at")
    made = StateCreate(
        name=read.name, title=read.title, session=read.session, at=read.at, reading=reading
    )
    return made, ignored


def parse_page(query: Mapping[str, str]) -> Page:
    """Read limit, after and order from a query; ApiError for values that are none."""
    limit = query.get("limit", "20")
    if not (
        limit.isascii() and limit.isdigit() and len(limit) <= 6 and 1 <= int(limit) <= MAX_PAGE
    ):
        raise ApiError(
            INVALID, f"limit is {show(limit)}; give a number from 1 to {MAX_PAGE}", "limit"
        )
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise ApiError(INVALID, f"order is {show(order)}; allowed are asc, desc", "order")
    after = query.get("after")
    if after is not None and not 1 <= len(after) <= 128:
        raise ApiError(INVALID, f"after is {show(after)}; give an id of the list", "after")
    return Page(int(limit), after, order == "desc")


def _reading(body: AppendBody, limits: Limits) -> Reading | None:
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
