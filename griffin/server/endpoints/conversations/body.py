"""/v1/conversations: the requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from griffin.server.limits import Limits
from griffin.server.protocol.body import read_body
from griffin.server.protocol.bounds import Metadata
from griffin.server.protocol.items import (
    ItemBody,
    PlainItem,
    ignored_in,
    read_items,
    refused_in,
)
from griffin.server.protocol.policy import Policy

POLICY = Policy(ignored=ignored_in("items"), refused=refused_in("items"))


class ConversationCreate(msgspec.Struct, kw_only=True):
    """POST /v1/conversations. items: what it begins with."""

    items: list[ItemBody] | None = None
    metadata: Metadata | None = None


class ConversationChange(msgspec.Struct, kw_only=True):
    """POST /v1/conversations/{id}: other metadata; null takes it away."""

    metadata: Metadata | None


class ItemsCreate(msgspec.Struct, kw_only=True):
    """POST /v1/conversations/{id}/items."""

    items: Annotated[list[ItemBody], Meta(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a conversation is to have. items: references among them until they are looked up."""

    items: tuple[PlainItem, ...] = ()
    metadata: dict[str, str]
    ignored: tuple[str, ...]


def parse_create(body: bytes, limits: Limits) -> Given:
    """Read the body of POST /v1/conversations; an empty one asks for nothing."""
    read, ignored = read_body(body or b"{}", ConversationCreate, POLICY, limits)
    items = read_items(read.items or [], limits, "items")
    return Given(items=items, metadata=read.metadata or {}, ignored=ignored)


def parse_change(body: bytes, limits: Limits) -> Given:
    """Read the body of POST /v1/conversations/{id}."""
    read, ignored = read_body(body, ConversationChange, POLICY, limits)
    return Given(metadata=read.metadata or {}, ignored=ignored)


def parse_items(body: bytes, limits: Limits) -> Given:
    """Read the body of POST /v1/conversations/{id}/items."""
    read, ignored = read_body(body, ItemsCreate, POLICY, limits)
    return Given(items=read_items(read.items, limits, "items"), metadata={}, ignored=ignored)
