"""/v1/conversations: lists of items that answers follow.

A conversation is a session of who asks, under an id that exists only once it was created; its items
lie beside it. What else can be done with sessions is in /v1/sessions.
"""

from __future__ import annotations

from functools import partial

from griffin.server import protocol as p
from griffin.server.conversations.items import (
    conversation_of,
    conversation_settings,
    item_list,
    item_page,
    look_up,
)
from griffin.server.conversations.opening import as_reader
from griffin.server.endpoints.conversations.body import parse_change, parse_create, parse_items
from griffin.server.endpoints.conversations.reply import ConversationObject
from griffin.server.errors import NO_STATE, ApiError
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.service import Handler, Service
from griffin.server.shelves import CONVERSATION, in_turn, opened, refusals, shelf
from griffin.sessions import Item, Store, UnknownSession


async def create(service: Service, exchange: Exchange) -> Reply:
    """Create a conversation, of items if there are any."""
    body = await service.body(exchange)
    asked = await service.think(len(body), lambda: parse_create(body, service.limits))
    store = shelf(service, exchange.namespace)
    items = await look_up(service, exchange, asked.items, "items")
    name = p.new_id(CONVERSATION)

    def do() -> ConversationObject:
        store.create(
            name,
            fingerprint=service.fingerprint,
            config=service.llm.model.config,
            settings=conversation_settings(name, asked.metadata),
        ).close()
        try:
            if items:
                store.add_items(name, [Item("input", item) for item in items])
        except BaseException:
            store.delete(name)
            raise
        return _found(store, name)

    made = await service.disk(lambda: refusals(do))
    return Reply(p.encode(made), p.ignored_header(asked.ignored))


async def show(service: Service, exchange: Exchange) -> Reply:
    """Show a conversation."""
    store, name = _named(service, exchange)
    return Reply(p.encode(await service.disk(lambda: refusals(lambda: _found(store, name)))))


async def change(service: Service, exchange: Exchange) -> Reply:
    """Change what is kept beside a conversation."""
    body = await service.body(exchange)
    asked = await service.think(len(body), lambda: parse_change(body, service.limits))
    store, name = _named(service, exchange)
    await service.disk(lambda: refusals(lambda: _found(store, name)))
    own = await service.disk(lambda: refusals(lambda: as_reader(service, store, name)))
    open_ = partial(store.open, name, own.fingerprint)
    async with opened(service, exchange, store, name, open_) as session:
        settings = {**session.settings, **conversation_settings(name, asked.metadata)}
        await service.disk(lambda: refusals(lambda: session.update(settings=settings)))
    found = await service.disk(lambda: refusals(lambda: _found(store, name)))
    return Reply(p.encode(found), p.ignored_header(asked.ignored))


async def delete(service: Service, exchange: Exchange) -> Reply:
    """Delete a conversation, with its items and all that was read of them."""
    store, name = _named(service, exchange)

    def do() -> None:
        _found(store, name)
        store.delete(name)

    await in_turn(service, exchange, store, name, do)
    return Reply(p.encode(p.Deleted(id=name, object="conversation.deleted")))


async def items(service: Service, exchange: Exchange) -> Reply:
    """List the items of a conversation."""
    page = p.parse_page(exchange.query)
    store, name = _named(service, exchange)

    def do() -> bytes:
        _found(store, name)
        return p.encode(item_page(service, store, name, page))

    return Reply(await service.disk(lambda: refusals(do)))


async def add(service: Service, exchange: Exchange) -> Reply:
    """Add items at the end of a conversation."""
    body = await service.body(exchange)
    asked = await service.think(len(body), lambda: parse_items(body, service.limits))
    store, name = _named(service, exchange)
    more = await look_up(service, exchange, asked.items, "items")

    def do() -> bytes:
        _found(store, name)
        return p.encode(item_list(store.add_items(name, [Item("input", one) for one in more])))

    made = await in_turn(service, exchange, store, name, do)
    return Reply(made, p.ignored_header(asked.ignored))


async def item(service: Service, exchange: Exchange) -> Reply:
    """Show an item of a conversation."""
    store, name = _named(service, exchange)

    def do() -> bytes:
        _found(store, name)
        return p.encode(store.item(name, exchange.params["item"]))

    return Reply(await service.disk(lambda: refusals(do)))


async def remove(service: Service, exchange: Exchange) -> Reply:
    """Delete an item of a conversation; the next answer does not follow it."""
    store, name = _named(service, exchange)

    def do() -> ConversationObject:
        found = _found(store, name)
        store.remove_item(name, exchange.params["item"])
        return found

    return Reply(p.encode(await in_turn(service, exchange, store, name, do)))


def _named(service: Service, exchange: Exchange) -> tuple[Store, str]:
    name = p.check_name(exchange.params["id"], "id")
    return shelf(service, exchange.namespace), name


def _found(store: Store, name: str) -> ConversationObject:
    """Return a conversation as clients see it; ApiError (404) if there is none of that id."""
    try:
        info = store.show(name)
    except UnknownSession:
        info = None
    metadata = None if info is None else conversation_of(name, info.settings)
    if info is None or metadata is None:
        raise ApiError(
            NO_STATE,
            f"there is no conversation {name!r}; POST /v1/conversations makes one. It was deleted,"
            " is another key's, or is a session, which /v1/sessions shows",
            "id",
        )
    return ConversationObject(id=name, created_at=int(info.created), metadata=metadata)


HANDLERS: dict[str, Handler] = {
    "POST /v1/conversations": create,
    "GET /v1/conversations/{id}": show,
    "POST /v1/conversations/{id}": change,
    "DELETE /v1/conversations/{id}": delete,
    "GET /v1/conversations/{id}/items": items,
    "POST /v1/conversations/{id}/items": add,
    "GET /v1/conversations/{id}/items/{item}": item,
    "DELETE /v1/conversations/{id}/items/{item}": remove,
}
