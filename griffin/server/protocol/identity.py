"""Which conversation a request goes on with, and what the answer says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from griffin.server.errors import INVALID, ApiError
from griffin.server.protocol.bounds import check_name, is_name

SESSION_HEADER = "x-griffin-session"
# Programs put these on requests for reasons of their own (a coding agent on a title's as on its
# agents', Open WebUI on several columns at once, "local:..." for what must not be kept).
HINT_HEADERS = ("x-session-id", "x-openwebui-chat-id", "x-conversation-id")

Kind = Literal["session", "conversation", "response", "hint", "none"]
Source = Literal["session", "prefix", "none"]  # where an answer went on from


@dataclass(frozen=True)
class Identity:
    """What a request goes on with.

    kind:   "session" and "conversation": value is a session's name. "response": value is the id of
            an earlier response. "hint": value names where a like conversation may lie; the answer
            does not depend on it. "none": the request is all there is.
    source: the field or header that said so, "" for none.
    """

    kind: Kind
    value: str = ""
    source: str = ""

    @property
    def named(self) -> bool:
        """Whether the request itself names something to go on from."""
        return self.kind in ("session", "conversation", "response")


def identify(
    headers: Mapping[str, str],
    *,
    session_id: str | None = None,
    previous_response_id: str | None = None,
    conversation: str | None = None,
    answers: int = 1,
) -> Identity:
    """Return the first that is there of: session_id, previous_response_id, conversation,
    X-Griffin-Session, and the hints X-Session-Id, X-OpenWebUI-Chat-Id, X-Conversation-Id.

    headers: with names in lower case, or a mapping that does not look at case. answers: how many
    the request wants; what is named goes on with one, so more of them are refused.
    Raises ApiError for that, and if X-Griffin-Session is no name. A hint never refuses: what is no
    name there says nothing.
    """
    found = _named(headers, session_id, previous_response_id, conversation)
    if found is not None and answers > 1:
        raise ApiError(
            INVALID,
            f"{answers} answers were asked for, but a session goes on with one",
            found.source,
        )
    if found is not None:
        return found
    for header in HINT_HEADERS:
        value = headers.get(header)
        if value and is_name(value):
            return Identity("hint", value, header)
    return Identity("none")


def _named(
    headers: Mapping[str, str],
    session_id: str | None,
    previous_response_id: str | None,
    conversation: str | None,
) -> Identity | None:
    if session_id is not None:
        return Identity("session", session_id, "session_id")
    if previous_response_id is not None:
        return Identity("response", previous_response_id, "previous_response_id")
    if conversation is not None:
        return Identity("conversation", conversation, "conversation")
    if own := headers.get(SESSION_HEADER):
        return Identity("session", check_name(own, "X-Griffin-Session"), SESSION_HEADER)
    return None


def state_header(used: Source, cached_tokens: int) -> dict[str, str]:
    """Return the response header that says where the answer went on from, and how much was not read
    again."""
    return {"x-griffin-state": f"{used}; cached={cached_tokens}"}
