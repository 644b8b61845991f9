"""/v1/conversations: lists of items that answers follow."""

import msgspec

from griffin.server import errors
from griffin.server.endpoints.conversations.body import (
    POLICY,
    ConversationChange,
    ConversationCreate,
    ItemsCreate,
)
from griffin.server.endpoints.conversations.reply import AnyItem, ConversationObject
from griffin.server.protocol.items import ItemList
from griffin.server.protocol.operation import BODY, KEPT, NAMED, Operation
from griffin.server.protocol.reply import Deleted

_PATH = "/v1/conversations/{id}"
_CHANGES = (*NAMED, errors.BUSY)


def _made(
    route: str, summary: str, reply: type[msgspec.Struct], body: type[msgspec.Struct]
) -> Operation:
    """Return an operation that keeps something."""
    cases = (*BODY, *_CHANGES, errors.UNSUPPORTED, errors.NO_ITEM, *KEPT)
    return Operation(
        *(route, summary, reply, body),
        cases=cases,
        policy=POLICY,
        bounds={} if body is ConversationChange else {"items": "max_messages"},
        empty=body is ConversationCreate,
    )


operations = (
    _made(
        *("POST /v1/conversations", "Create a conversation."),
        *(ConversationObject, ConversationCreate),
    ),
    Operation(f"GET {_PATH}", "Show a conversation.", ConversationObject, cases=NAMED),
    _made(
        *(f"POST {_PATH}", "Change what is kept beside it."),
        *(ConversationObject, ConversationChange),
    ),
    Operation(f"DELETE {_PATH}", "Delete it and its items for good.", Deleted, cases=_CHANGES),
    Operation(f"GET {_PATH}/items", "List its items.", ItemList, cases=NAMED, paged=True),
    _made(f"POST {_PATH}/items", "Add items.", ItemList, ItemsCreate),
    Operation(
        f"GET {_PATH}/items/{{item}}", "Show an item.", AnyItem, cases=(*NAMED, errors.NO_ITEM)
    ),
    Operation(
        f"DELETE {_PATH}/items/{{item}}",
        "Delete an item for good.",
        ConversationObject,
        cases=(*_CHANGES, errors.NO_ITEM),
    ),
)
