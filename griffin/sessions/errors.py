"""What can go wrong with a kept conversation, in words for people and codes for programs."""

from __future__ import annotations


class SessionError(ValueError):
    """Whatever the sessions refuse. `status`: the HTTP status. `code`: the word for programs."""

    status = 400
    code = "session_error"


class InvalidName(SessionError):
    """A name or namespace outside the allowed letters."""

    code = "invalid_name"


class UnknownSession(SessionError):
    """No session, or no state file, of that name."""

    status = 404
    code = "state_not_found"


def unknown_session(name: str, namespace: str) -> UnknownSession:
    """Return the error for a name of which a namespace has no session, or no saved state."""
    if namespace.rpartition(".")[2] == "states":
        return UnknownSession(f"there is no saved state {name!r}; GET /v1/states lists them")
    return UnknownSession(
        f"there is no session {name!r}; `griffin state ls` (in a chat: /list, over HTTP: GET"
        " /v1/sessions) lists them"
    )


class UnknownTurn(SessionError):
    """No such turn, or one whose state was never here."""

    status = 404
    code = "turn_not_found"


class UnknownItem(SessionError):
    """No item of that id."""

    status = 404
    code = "item_not_found"


class SessionExists(SessionError):
    """The name is taken."""

    status = 409
    code = "session_exists"


class SessionBusy(SessionError):
    """Somebody has the session, or the index, in hand."""

    status = 409
    code = "session_busy"


class StateMismatch(SessionError):
    """The state was made by another model, or through another tokenizer or template."""

    status = 409
    code = "state_mismatch"


class StateTorn(SessionError):
    """A file is missing, cut short, altered, or not one of ours. The message names it."""

    status = 409
    code = "state_torn"


class StorageFull(SessionError):
    """No room: the disk is full, or the quota is reached. What was kept before is untouched."""

    status = 507
    code = "storage_full"
