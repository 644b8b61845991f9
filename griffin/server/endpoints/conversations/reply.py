"""/v1/conversations: the answers."""

from __future__ import annotations

from typing import Literal

import msgspec


class ConversationObject(msgspec.Struct, kw_only=True):
    """A conversation. created_at: in seconds since 1970."""

    id: str
    created_at: int
    metadata: dict[str, str]
    object: Literal["conversation"] = "conversation"


class AnyItem(msgspec.Struct, kw_only=True):
    """An item; the rest of it is as its type has it."""

    id: str
    type: Literal["message", "function_call", "function_call_output", "reasoning"]
