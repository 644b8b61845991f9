"""/v1/sessions: conversations that stay."""

import msgspec

from griffin.server import errors
from griffin.server.endpoints.sessions.body import (
    LONGEST_SEARCH,
    Fork,
    Rewind,
    SessionChange,
    SessionCreate,
)
from griffin.server.endpoints.sessions.reply import Appended, SessionList, SessionObject, TurnList
from griffin.server.errors import Case
from griffin.server.protocol.operation import BODY, KEPT, NAMED, RUN, Operation
from griffin.server.protocol.reading import AppendBody
from griffin.server.protocol.reply import Deleted

_PATH = "/v1/sessions/{name}"
_MADE = (*BODY, *KEPT, errors.TAKEN)


def _session(
    route: str, summary: str, body: type[msgspec.Struct] | None, *cases: Case
) -> Operation:
    """Return an operation that answers with a session."""
    empty = body in (SessionCreate, Fork, Rewind)
    return Operation(route, summary, SessionObject, body, cases=(*NAMED, *cases), empty=empty)


operations = (
    Operation(
        "GET /v1/sessions",
        "List the sessions, or those whose title or texts have the words of `search`.",
        SessionList,
        cases=(errors.INVALID,),
        paged=True,
        queries={"search": {"type": "string", "maxLength": LONGEST_SEARCH}},
    ),
    _session("POST /v1/sessions", "Create a session.", SessionCreate, *_MADE),
    _session(f"GET {_PATH}", "Show a session.", None),
    _session(
        f"PATCH {_PATH}", "Rename a session.", SessionChange, *BODY, errors.TAKEN, errors.BUSY
    ),
    Operation(
        f"DELETE {_PATH}", "Delete a session for good.", Deleted, cases=(*NAMED, errors.BUSY)
    ),
    Operation(f"GET {_PATH}/turns", "List its turns.", TurnList, cases=NAMED),
    _session(f"POST {_PATH}/fork", "Go on from it in two ways.", Fork, *_MADE, errors.NO_TURN),
    _session(
        *(f"POST {_PATH}/rewind", "Undo turns, or go to one.", Rewind),
        *(*BODY, errors.NO_TURN, errors.BUSY),
    ),
    Operation(
        f"POST {_PATH}/append",
        "Read on without answering.",
        Appended,
        AppendBody,
        cases=RUN,
        bounds={"tokens": "max_prompt_tokens", "messages": "max_messages"},
    ),
)
