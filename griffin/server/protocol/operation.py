"""What a method of a path reads, what it answers, how it can fail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from griffin.server import errors
from griffin.server.errors import Case
from griffin.server.protocol.policy import Policy

# Failures of what reads a body, of what is kept, of what the model does, of what a path names.
BODY = (errors.INVALID, errors.TOO_LARGE, errors.BAD_MEDIA, errors.SLOW_BODY)
KEPT = (errors.MISMATCH, errors.TORN, errors.STORAGE_FULL)
RUN = (
    *(*BODY, errors.UNSUPPORTED, errors.TOO_LONG, errors.NO_MODEL, errors.NO_STATE, *KEPT),
    *(errors.BUSY, errors.IMPOSSIBLE, errors.QUEUE_FULL, errors.TIMEOUT),
)
NAMED = (errors.INVALID, errors.NO_STATE)


class Operation(NamedTuple):
    """One method of one path.

    route:       "POST /v1/chat/completions". reply, body: Structs; a reply of None is plain text.
    cases:       failures besides those that any request can have.
    policy:      what becomes of fields that `body` does not have, if the document says it.
    bounds:      fields of `body` that the server's Limits bound, each with the name of its limit.
    streams:     events are offered; `chunk` is one's Struct, None where they are of many kinds.
    lines:       lines of JSON are, each a reply.
    empty:       a request without a body asks for the defaults. paged: parse_page reads the query.
    public:      no key is needed. queries: further values of the query, with their schemas.
    octets:      the body, or the reply, is bytes instead of JSON.
    """

    route: str
    summary: str
    reply: type[msgspec.Struct] | None
    body: type[msgspec.Struct] | None = None
    cases: tuple[Case, ...] = ()
    policy: Policy | None = None
    bounds: Mapping[str, str] = {}
    streams: bool = False
    chunk: type[msgspec.Struct] | None = None
    lines: bool = False
    empty: bool = False
    paged: bool = False
    public: bool = False
    queries: Mapping[str, dict[str, Any]] = {}
    octets: Literal["", "body", "reply"] = ""

    @property
    def method(self) -> str:
        return self.route.split()[0]

    @property
    def path(self) -> str:
        return self.route.split()[1]
