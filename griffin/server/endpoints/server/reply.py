"""/v1/server, /health and /ready: what the server holds and how it does."""

from __future__ import annotations

import dataclasses
from typing import Literal

import msgspec

from griffin.server.limits import Limits


class Health(msgspec.Struct, kw_only=True):
    """GET /health and /ready."""

    status: Literal["ok", "loading", "draining", "broken", "hung"]


class SlotCounts(msgspec.Struct, kw_only=True):
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
    slots: SlotCounts = msgspec.field(default_factory=lambda: SlotCounts(total=0, busy=0))
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
    slots: SlotCounts
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
