"""/v1/states: the requests."""

from __future__ import annotations

from dataclasses import dataclass

from griffin.server.errors import INVALID, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol import policy
from griffin.server.protocol.body import read_body
from griffin.server.protocol.bounds import ModelName, Name, Title, TurnNumber
from griffin.server.protocol.reading import AppendBody, Reading, reading_of


class StateBody(AppendBody, kw_only=True):
    """POST /v1/states: a state by reading text, tokens or messages, or of a session as it is (at a
    turn). model: that reads; the session's, or the first, if absent."""

    name: Name
    title: Title | None = None
    session: Name | None = None
    at: TurnNumber | None = None
    model: ModelName | None = None


@dataclass(frozen=True, kw_only=True)
class StateCreate:
    """A state to make: by `reading`, or from `session` at turn `at`; one of the two is None."""

    name: str
    title: str | None
    session: str | None
    at: int | None
    model: str | None
    reading: Reading | None


def parse_state_create(body: bytes, limits: Limits) -> tuple[StateCreate, tuple[str, ...]]:
    """Read the body of POST /v1/states. Also returns the ignored fields."""
    read, ignored = read_body(body, StateBody, policy.OWN, limits)
    reading = reading_of(read, limits)
    if (reading is None) is (read.session is None):
        raise ApiError(
            INVALID, "exactly one of session, text, tokens and messages is needed", "session"
        )
    if read.at is not None and read.session is None:
        raise ApiError(INVALID, "at names a turn of a session, but session is missing", "at")
    made = StateCreate(
        name=read.name,
        title=read.title,
        session=read.session,
        at=read.at,
        model=read.model,
        reading=reading,
    )
    return made, ignored
