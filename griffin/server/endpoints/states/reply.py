"""/v1/states: saved states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from griffin.server.protocol.page import ends


class StateObject(msgspec.Struct, kw_only=True):
    """A saved state. model: that read it; null if it is not served."""

    id: str
    created: int
    title: str
    tokens: int
    bytes: int
    parent: str | None = None
    model: str | None = None
    object: Literal["state"] = "state"


class StateList(msgspec.Struct, kw_only=True):
    """A page of GET /v1/states."""

    data: list[StateObject]
    has_more: bool
    first_id: str | None
    last_id: str | None
    object: Literal["list"] = "list"


def state_list(data: Sequence[StateObject], has_more: bool) -> StateList:
    """Make a page of states."""
    first, last = ends(data)
    return StateList(data=list(data), has_more=has_more, first_id=first, last_id=last)
