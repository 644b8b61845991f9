"""/v1/sessions: sessions, their turns, and what was read into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from griffin.server.protocol.page import ends


class SessionObject(msgspec.Struct, kw_only=True):
    """A session. Times are seconds since 1970; `head`: the turn it stands at; `busy`: in use.

    system: the text before the first message, as far as the session knows. model: that reads and
    answers in it; null if it is not served.
    """

    id: str
    created: int
    last_used: int
    title: str
    tokens: int
    turns: int
    bytes: int
    head: int | None = None
    system: str | None = None
    parent: str | None = None
    model: str | None = None
    busy: bool = False
    object: Literal["session"] = "session"


class TurnObject(msgspec.Struct, kw_only=True):
    """A turn of a session: its place in the tree, and what was said if the text was kept.

    finish_reason: how its answer ended, "length" or "cancelled" for one that was cut; null if that
                   is not known, or it holds none.
    """

    id: int
    parent: int | None
    role: str
    text: str | None
    tokens: int
    created: int
    current: bool = True
    finish_reason: str | None = None
    object: Literal["session.turn"] = "session.turn"


class Appended(msgspec.Struct, kw_only=True):
    """What an append did: tokens read now, and all that the session has seen."""

    id: str
    tokens_read: int
    tokens_seen: int
    object: Literal["session.append"] = "session.append"


class SessionList(msgspec.Struct, kw_only=True):
    """A page of GET /v1/sessions."""

    data: list[SessionObject]
    has_more: bool
    first_id: str | None
    last_id: str | None
    object: Literal["list"] = "list"


class TurnList(msgspec.Struct, kw_only=True):
    """GET /v1/sessions/{name}/turns."""

    data: list[TurnObject]
    object: Literal["list"] = "list"


def session_list(data: Sequence[SessionObject], has_more: bool) -> SessionList:
    """Make a page of sessions."""
    first, last = ends(data)
    return SessionList(data=list(data), has_more=has_more, first_id=first, last_id=last)
