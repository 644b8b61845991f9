"""Every method of every path: what it reads, what it answers, how it can fail."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from griffin.server import errors
from griffin.server.errors import Case
from griffin.server.protocol import policy
from griffin.server.protocol.chat import ChatBody
from griffin.server.protocol.chat_reply import ChatChunk, ChatCompletion
from griffin.server.protocol.completion_reply import Completion
from griffin.server.protocol.completions import CompletionBody
from griffin.server.protocol.listing import (
    Appended,
    Deleted,
    Health,
    ModelList,
    ModelObject,
    Rendered,
    ServerObject,
    SessionList,
    SessionObject,
    StateList,
    StateObject,
    Text,
    Tokens,
    TurnList,
)
from griffin.server.protocol.policy import Policy
from griffin.server.protocol.response_reply import ResponseObject
from griffin.server.protocol.responses import ResponseBody
from griffin.server.protocol.sessions import (
    AppendBody,
    Fork,
    Rewind,
    SessionChange,
    SessionCreate,
    StateBody,
)
from griffin.server.protocol.tokens import DetokenizeBody, TemplateBody, TokenizeBody

_BODY = (errors.INVALID, errors.TOO_LARGE, errors.BAD_MEDIA, errors.SLOW_BODY)
_KEPT = (errors.MISMATCH, errors.TORN, errors.STORAGE_FULL)
_RUN = (
    *(*_BODY, errors.UNSUPPORTED, errors.TOO_LONG, errors.NO_MODEL, errors.NO_STATE, *_KEPT),
    *(errors.BUSY, errors.IMPOSSIBLE, errors.QUEUE_FULL, errors.TIMEOUT),
)
_NAMED = (errors.INVALID, errors.NO_STATE)


class Operation(NamedTuple):
    """One method of one path.

    route:       "POST /v1/chat/completions". reply, body: Structs; a reply of None is plain text.
    cases:       failures besides those that any request can have.
    policy:      what becomes of fields that `body` does not have; None for our own endpoints.
    streams:     events are offered; `chunk` is one's Struct, None where they are of many kinds.
    empty:       a request without a body asks for the defaults. paged: parse_page reads the query.
    public:      no key is needed.
    """

    route: str
    summary: str
    reply: type[msgspec.Struct] | None
    body: type[msgspec.Struct] | None = None
    cases: tuple[Case, ...] = ()
    policy: Policy | None = None
    streams: bool = False
    chunk: type[msgspec.Struct] | None = None
    empty: bool = False
    paged: bool = False
    public: bool = False

    @property
    def method(self) -> str:
        return self.route.split()[0]

    @property
    def path(self) -> str:
        return self.route.split()[1]


_CHAT = Operation(
    "POST /v1/chat/completions",
    "Answer a conversation.",
    ChatCompletion,
    ChatBody,
    cases=_RUN,
    policy=policy.CHAT,
    streams=True,
    chunk=ChatChunk,
)
_COMPLETION = Operation(
    "POST /v1/completions",
    "Continue texts, or measure them.",
    Completion,
    CompletionBody,
    cases=_RUN,
    policy=policy.COMPLETION,
    streams=True,
    chunk=Completion,
)
_RESPONSE = Operation(
    "POST /v1/responses",
    "Answer, and remember where one was.",
    ResponseObject,
    ResponseBody,
    cases=_RUN,
    policy=policy.RESPONSE,
    streams=True,
)
_RESPONSES = (
    _RESPONSE,
    Operation("GET /v1/responses/{id}", "Show a stored response.", ResponseObject, cases=_NAMED),
    Operation("DELETE /v1/responses/{id}", "Forget a stored response.", Deleted, cases=_NAMED),
)
_SERVER = (
    Operation("GET /v1/models", "List the models.", ModelList),
    Operation("GET /v1/models/{model}", "Show a model.", ModelObject, cases=(errors.NO_MODEL,)),
    Operation("GET /v1/server", "Show what the server holds and allows.", ServerObject),
    Operation("GET /health", "Say that the process lives.", Health, public=True),
    Operation("GET /ready", "Say whether requests are taken.", Health, public=True),
    Operation("GET /metrics", "Give the counters to Prometheus.", None),
)


def _session(
    route: str, summary: str, body: type[msgspec.Struct] | None, *cases: Case
) -> Operation:
    """Return an operation that answers with a session."""
    empty = body in (SessionCreate, Fork, Rewind)
    return Operation(route, summary, SessionObject, body, cases=(*_NAMED, *cases), empty=empty)


_SESSION = "/v1/sessions/{name}"
_MADE = (*_BODY, *_KEPT, errors.TAKEN)
_SESSIONS = (
    Operation(
        "GET /v1/sessions", "List the sessions.", SessionList, cases=(errors.INVALID,), paged=True
    ),
    _session("POST /v1/sessions", "Create a session.", SessionCreate, *_MADE),
    _session(f"GET {_SESSION}", "Show a session.", None),
    _session(
        f"PATCH {_SESSION}", "Rename a session.", SessionChange, *_BODY, errors.TAKEN, errors.BUSY
    ),
    Operation(
        f"DELETE {_SESSION}", "Delete a session for good.", Deleted, cases=(*_NAMED, errors.BUSY)
    ),
    Operation(f"GET {_SESSION}/turns", "List its turns.", TurnList, cases=_NAMED),
    _session(f"POST {_SESSION}/fork", "Go on from it in two ways.", Fork, *_MADE, errors.NO_TURN),
    _session(
        *(f"POST {_SESSION}/rewind", "Undo turns, or go to one.", Rewind),
        *(*_BODY, errors.NO_TURN, errors.BUSY),
    ),
    Operation(
        f"POST {_SESSION}/append",
        "Read on without answering.",
        Appended,
        AppendBody,
        cases=_RUN,
    ),
)
_STATE = "/v1/states/{name}"
_STATES = (
    Operation(
        "GET /v1/states", "List the saved states.", StateList, cases=(errors.INVALID,), paged=True
    ),
    Operation(
        "POST /v1/states",
        "Save a state.",
        StateObject,
        StateBody,
        cases=(*_RUN, errors.NO_TURN, errors.TAKEN),
    ),
    Operation(f"GET {_STATE}", "Show a state.", StateObject, cases=_NAMED),
    Operation(f"DELETE {_STATE}", "Delete a state for good.", Deleted, cases=_NAMED),
    _session(f"POST {_STATE}/fork", "Begin a session from a state.", Fork, *_MADE),
)
_READ = (*_BODY, errors.NO_MODEL)
_TOKENS = (
    Operation("POST /tokenize", "Turn text into ids.", Tokens, TokenizeBody, cases=_READ),
    Operation("POST /detokenize", "Turn ids into text.", Text, DetokenizeBody, cases=_READ),
    Operation(
        "POST /apply-template", "Show what the model reads.", Rendered, TemplateBody, cases=_READ
    ),
)

OPERATIONS: tuple[Operation, ...] = (
    *(_CHAT, _COMPLETION),
    *(*_RESPONSES, *_SERVER, *_SESSIONS, *_STATES, *_TOKENS),
)
