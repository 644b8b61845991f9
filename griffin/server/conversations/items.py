"""Items that are kept: looked up where a request refers to them, listed, and put before an answer.

What OpenAI calls a conversation is a session whose items are its whole truth: an answer in it
follows them, and its turns only spare reading. Such a session says so in its settings, with its own
name, so that a fork of it, or one that got another name, is a session like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from griffin.server.conversations.asked import Asked
from griffin.server.errors import INVALID, ApiError
from griffin.server.http.exchange import Exchange
from griffin.server.protocol.bounds import check_most
from griffin.server.protocol.items import (
    ItemList,
    PlainItem,
    messages_of,
    references,
    resolved,
)
from griffin.server.protocol.page import Page
from griffin.server.service import Service
from griffin.server.shelves import refusals, shelf
from griffin.sessions import Session, Store, UnknownItem

_KEY = "conversation"  # in a session's settings
_ROOM = 3  # what is kept has six bytes for a letter that has two or three in a body


def conversation_settings(name: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what the settings of a session that is a conversation say of that."""
    return {_KEY: {"id": name, "metadata": dict(metadata)}}


def conversation_of(name: str, settings: Mapping[str, Any]) -> dict[str, str] | None:
    """Return a conversation's metadata; None for another session."""
    said = settings.get(_KEY)
    if not isinstance(said, dict) or said.get("id") != name:
        return None
    return said.get("metadata") or {}


def check_no_conversation(session: Session, param: str) -> None:
    """Raise ApiError for a conversation: what is not an item changes nothing in it."""
    if conversation_of(session.name, session.settings) is not None:
        raise ApiError(
            INVALID,
            f"{session.name} is a conversation; name it as `conversation` of /v1/responses, or use"
            f" /v1/conversations/{session.name}/items",
            param,
        )


def with_items(service: Service, store: Store, session: Session, asked: Asked) -> Asked:
    """Return what is asked with the items of a conversation before it; as it is elsewhere."""
    if conversation_of(session.name, session.settings) is None:
        return asked
    items = [*store.items(session.name, most_bytes=_most_bytes(service)), *asked.items]
    what = f"the conversation has {len(items)} items with those of this request"
    check_most(len(items), what, service.limits, "max_messages", asked.param)
    return replace(asked, messages=messages_of(items, asked.param), whole=True)


async def look_up(
    service: Service, exchange: Exchange, items: Sequence[PlainItem], param: str
) -> tuple[PlainItem, ...]:
    """Return items with what is kept in the place of references, of whatever who asks keeps.

    ApiError (404) for a reference to nothing.
    """
    asked = references(items)
    if not asked:
        return tuple(items)
    store, most = shelf(service, exchange.namespace, "responses"), _most_bytes(service)
    kept = await service.disk(lambda: refusals(lambda: store.find_items(asked, most)))
    return resolved(items, kept, param)


def item_page(
    service: Service, store: Store, name: str, page: Page, *, given: bool = False
) -> ItemList:
    """Return a page of a session's items, of fewer where they are large.

    given: only those that came with a request.
    """
    read = partial(
        store.items,
        name,
        side="input" if given else None,
        newest=page.newest,
        most_bytes=_most_bytes(service),
    )
    try:
        found = read(after=page.after, limit=page.limit)
        more = bool(found) and bool(read(after=found[-1]["id"], limit=1))
    except UnknownItem as error:
        raise ApiError(INVALID, f"after: {error}", "after") from None
    return item_list(found, has_more=more)


def item_list(items: Sequence[PlainItem], *, has_more: bool = False) -> ItemList:
    """Return items as a list."""
    first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    return ItemList(data=list(items), has_more=has_more, first_id=first, last_id=last)


def _most_bytes(service: Service) -> int:
    """Return how many bytes of items are read at once: as much as a body may bring."""
    return _ROOM * service.limits.max_body_bytes
