"""Everything else that the server answers: models, the server itself, sessions, states, tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from griffin.server.limits import Limits


class ModelExtras(msgspec.Struct, kw_only=True):
    """What only this server tells of a model. state_bytes: of a full state. window: tokens kept
    verbatim."""

    parameters: int
    weights: str
    state_bytes: int
    window: int
    chat: bool


class ModelObject(msgspec.Struct, kw_only=True):
    """A model that is served. created: seconds since 1970."""

    id: str
    created: int
    owned_by: str = "griffin"
    object: Literal["model"] = "model"
    griffin: ModelExtras | UnsetType = UNSET


class ModelList(msgspec.Struct, kw_only=True):
    """GET /v1/models."""

    data: list[ModelObject]
    object: Literal["list"] = "list"


class SessionObject(msgspec.Struct, kw_only=True):
    """A session. Times are seconds since 1970; `head`: the turn it stands at; `busy`: in use."""

    id: str
    created: int
    last_used: int
    title: str
    tokens: int
    turns: int
    bytes: int
    head: int | None = None
    parent: str | None = None
    busy: bool = False
    object: Literal["session"] = "session"


class TurnObject(msgspec.Struct, kw_only=True):
    """A turn of a session: its place in the tree, and what was said if the text was kept."""

    id: int
    parent: int | None
    role: str
    text: str | None
    tokens: int
    created: int
    current: bool = True
    object: Literal["session.turn"] = "session.turn"


class StateObject(msgspec.Struct, kw_only=True):
    """A saved state."""

    id: str
    created: int
    title: str
    tokens: int
    bytes: int
    parent: str | None = None
    object: Literal["state"] = "state"


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


class StateList(msgspec.Struct, kw_only=True):
    """A page of GET /v1/states."""

    data: list[StateObject]
    has_more: bool
    first_id: str | None
    last_id: str | None
    object: Literal["list"] = "list"


class Deleted(msgspec.Struct, kw_only=True):
    """Something is gone. object: what it was, "session.deleted", "state.deleted", "response"."""

    id: str
    object: str
    deleted: bool = True


class Tokens(msgspec.Struct, kw_only=True):
    """POST /tokenize. token_strs: only if asked for. max_model_len: null, for a state has no
    end."""

    tokens: list[int]
    count: int
    max_model_len: None = None
    token_strs: list[str] | None = None


class Text(msgspec.Struct, kw_only=True):
    """POST /detokenize: the text, under the names that vLLM and llama.cpp give it."""

    prompt: str
    content: str


class Rendered(msgspec.Struct, kw_only=True):
    """POST /apply-template: the text that the model reads, control tokens by their names."""

    prompt: str


class Health(msgspec.Struct, kw_only=True):
    """GET /health and /ready."""

    status: Literal["ok", "loading", "draining", "broken"]


class Slots(msgspec.Struct, kw_only=True):
    """Rows that can run at once."""

    total: int
    busy: int


class ReplicaObject(msgspec.Struct, kw_only=True):
    """One of the processes that serve at this address. up: it answered; of one that did not all is
    0.

    bytes: by what they are for (weights, slots, kept, prefix_cache).
    """

    replica: int
    up: bool = True
    slots: Slots = msgspec.field(default_factory=lambda: Slots(total=0, busy=0))
    waiting: int = 0
    running: int = 0
    paused: int = 0
    bytes: dict[str, int] = {}
    uptime_seconds: float = 0.0


class ServerObject(msgspec.Struct, kw_only=True):
    """GET /v1/server. bytes: by what they are for (weights, slots, kept, prefix_cache, sessions).

    replica: who answers. replicas: all that serve at this address; slots, waiting, running, paused
             and bytes
    are those of all of them together, uptime_seconds and the rest of who answers.
    """

    version: str
    model: str
    system_fingerprint: str
    slots: Slots
    waiting: int
    running: int
    paused: int
    bytes: dict[str, int]
    uptime_seconds: float
    limits: dict[str, int]
    replica: int = 1
    replicas: list[ReplicaObject] = []
    object: Literal["server"] = "server"


def limits_object(limits: Limits) -> dict[str, int]:
    """Return the limits for /v1/server."""
    return dataclasses.asdict(limits)


def session_list(data: Sequence[SessionObject], has_more: bool) -> SessionList:
    """Make a page of sessions."""
    first, last = _ends(data)
    return SessionList(data=list(data), has_more=has_more, first_id=first, last_id=last)


def state_list(data: Sequence[StateObject], has_more: bool) -> StateList:
    """Make a page of states."""
    first, last = _ends(data)
    return StateList(data=list(data), has_more=has_more, first_id=first, last_id=last)


def tokens(ids: Sequence[int], pieces: Sequence[str] | None = None) -> Tokens:
    """Make the answer of /tokenize."""
    return Tokens(
        tokens=list(ids), count=len(ids), token_strs=None if pieces is None else list(pieces)
    )


def _ends(data: Sequence[SessionObject] | Sequence[StateObject]) -> tuple[str | None, str | None]:
    return (data[0].id, data[-1].id) if data else (None, None)
