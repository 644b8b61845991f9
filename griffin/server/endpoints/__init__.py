"""What can be asked: one folder an endpoint, and its line in ENDPOINTS.

In the folder, `__init__` has `operations`, what the OpenAPI document says of it; body reads
requests, with what becomes of fields it does not know; reply makes answers. They import no torch.
route has HANDLERS, the functions that answer the operations. What is refused is written in OpenAI's
form, except where FAILURES has another.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from griffin.server.endpoints.messages.reply import MessageFailure
from griffin.server.endpoints.ollama.reply import OllamaFailure
from griffin.server.errors import ErrorBody, Failure
from griffin.server.protocol.operation import Operation

if TYPE_CHECKING:
    from griffin.server.service import Handler

# In the order of the document.
ENDPOINTS = (
    "chat",
    "completions",
    "responses",
    "messages",
    "embeddings",
    "ollama",
    "conversations",
    "models",
    "server",
    "sessions",
    "states",
    "tokens",
)

OPERATIONS: tuple[Operation, ...] = tuple(
    operation for name in ENDPOINTS for operation in import_module(f"{__name__}.{name}").operations
)

# By how a path begins, whatever is there.
FAILURES: dict[str, type[Failure]] = {
    "/v1/messages": MessageFailure,
    "/messages": MessageFailure,
    "/api/": OllamaFailure,
}


def failure_of(path: str) -> type[Failure]:
    """Return the form in which a refusal is written at a path."""
    return next((form for start, form in FAILURES.items() if path.startswith(start)), ErrorBody)


def handlers() -> dict[str, Handler]:
    """Return who answers each operation, by its route. Imports what answers need, torch too."""
    found: dict[str, Handler] = {}
    for name in ENDPOINTS:
        found |= import_module(f"{__name__}.{name}.route").HANDLERS
    return found
