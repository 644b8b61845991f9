"""Which function answers which operation of the protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from griffin.server.http.exchange import Exchange, Reply
from griffin.server.routes import chat, completions, responses, server, sessions, states, tokens
from griffin.server.service import Service

Handler = Callable[[Service, Exchange], Awaitable[Reply | None]]

HANDLERS: dict[str, Handler] = {
    "POST /v1/chat/completions": chat.chat,
    "POST /v1/completions": completions.completions,
    "POST /v1/responses": responses.create,
    "GET /v1/responses/{id}": responses.show,
    "DELETE /v1/responses/{id}": responses.delete,
    "GET /v1/models": server.models,
    "GET /v1/models/{model}": server.model,
    "GET /v1/server": server.server,
    "GET /health": server.health,
    "GET /ready": server.ready,
    "GET /metrics": server.metrics,
    "GET /v1/sessions": sessions.listed,
    "POST /v1/sessions": sessions.create,
    "GET /v1/sessions/{name}": sessions.show,
    "PATCH /v1/sessions/{name}": sessions.change,
    "DELETE /v1/sessions/{name}": sessions.delete,
    "GET /v1/sessions/{name}/turns": sessions.turns,
    "POST /v1/sessions/{name}/fork": sessions.fork,
    "POST /v1/sessions/{name}/rewind": sessions.rewind,
    "POST /v1/sessions/{name}/append": sessions.append,
    "GET /v1/states": states.listed,
    "POST /v1/states": states.create,
    "GET /v1/states/{name}": states.show,
    "DELETE /v1/states/{name}": states.delete,
    "POST /v1/states/{name}/fork": states.fork,
    "POST /tokenize": tokens.tokenize,
    "POST /detokenize": tokens.detokenize,
    "POST /apply-template": tokens.apply_template,
}
