"""Which conversation a request goes on with, and what the answer says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from griffin.server.errors import INVALID, ApiError
from griffin.server.protocol.bounds import check_name, is_name

# Ours is held to the rule for names. The others belong to programs that may put anything there
# (open-webui writes "local:..." for chats that must not be kept): what is no name there names no
# session.
OWN_HEADER = "x-session-id"
KNOWN_HEADERS = ("x-openwebui-chat-id", "x-conversation-id")


@dataclass(frozen=True)
class Identity:
    """What a request goes on with.

    kind:   "session": value is a session's name. "response": value is the id of an earlier
            response. "cache_key": value is only a hint. "none": the longest known prefix of its
            tokens.
    source: the field or header that said so, "" for none.
    """

    kind: Literal["session", "response", "cache_key", "none"]
    value: str = ""
    source: str = ""


def identify(
    headers: Mapping[str, str],
    *,
    session_id: str | None = None,
    previous_response_id: str | None = None,
    conversation: str | None = None,
    prompt_cache_key: str | None = None,
    answers: int = 1,
) -> Identity:
    """Return the first that is there of: session_id, previous_response_id, conversation,
    X-Session-Id, X-OpenWebUI-Chat-Id, X-Conversation-Id, prompt_cache_key.

    headers: with names in lower case, or a mapping that does not look at case. answers: how many
             the request
    wants; a session goes on with one, so more of them are refused, and the headers of others passed
    over. Raises ApiError for that, and if X-Session-Id is no name.
    """
    found = _named(headers, session_id, previous_response_id, conversation)
    if found is not None and answers > 1 and found.source in KNOWN_HEADERS:
        found = None
    if found is not None and answers > 1:
        raise ApiError(
            INVALID,
            f"{answers} answers were asked for, but a session goes on with one",
            found.source,
        )
    if found is not None:
        return found
    if prompt_cache_key:
        return Identity("cache_key", prompt_cache_key, "prompt_cache_key")
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
        return Identity("session", conversation, "conversation")
    if own := headers.get(OWN_HEADER):
        return Identity("session", check_name(own, "X-Session-Id"), OWN_HEADER)
    for header in KNOWN_HEADERS:
        value = headers.get(header)
        if value and is_name(value):
            return Identity("session", value, header)
    return None


def state_header(used: Literal["session", "prefix", "none"], cached_tokens: int) -> dict[str, str]:
    """Return the response header that says where the answer went on from, and how much was not read
    again."""
    return {"x-griffin-state": f"{used}; cached={cached_tokens}"}
