"""/v1/sessions: the requests."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from griffin.server.errors import INVALID, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol import policy
from griffin.server.protocol.body import read_body
from griffin.server.protocol.bounds import Count, ModelName, Name, Title, TurnNumber
from griffin.server.protocol.reading import AppendBody, Reading, reading_of

LONGEST_SEARCH = 200  # characters


class SessionCreate(msgspec.Struct, kw_only=True):
    """POST /v1/sessions. name: one is made up if there is none. state: a saved state to begin
    from. model: that is to read and answer; the state's, or the first, if absent."""

    name: Name | None = None
    title: Title | None = None
    state: Name | None = None
    model: ModelName | None = None


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


def parse_search(query: Mapping[str, str]) -> str:
    """Return the words that a listed session must have; "" if it need have none."""
    words = query.get("search", "")
    if len(words) > LONGEST_SEARCH:
        raise ApiError(
            INVALID,
            f"search has {len(words)} characters; give at most {LONGEST_SEARCH}",
            "search",
        )
    return words


def parse_append(body: bytes, limits: Limits) -> tuple[Reading, tuple[str, ...]]:
    """Read the body of an append. Also returns the ignored fields."""
    read, ignored = read_body(body, AppendBody, policy.OWN, limits)
    reading = reading_of(read, limits)
    if reading is None:
        raise ApiError(INVALID, "one of text, tokens and messages is needed", "text")
    return reading, ignored
