"""What can be asked: one folder an endpoint, and its line in ENDPOINTS.

In the folder, `__init__` has `operations`, what the OpenAPI document says of it; body reads
requests, with what becomes of fields it does not know; reply makes answers. They import no torch.
route has HANDLERS, the functions that answer the operations.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from griffin.server.protocol.operation import Operation

if TYPE_CHECKING:
    from griffin.server.service import Handler

# In the order of the document.
ENDPOINTS = (
    "chat",
    "completions",
    "responses",
    "models",
    "server",
    "sessions",
    "states",
    "tokens",
)

OPERATIONS: tuple[Operation, ...] = tuple(
    operation for name in ENDPOINTS for operation in import_module(f"{__name__}.{name}").operations
)


def handlers() -> dict[str, Handler]:
    """Return who answers each operation, by its route. Imports what answers need, torch too."""
    found: dict[str, Handler] = {}
    for name in ENDPOINTS:
        found |= import_module(f"{__name__}.{name}.route").HANDLERS
    return found
