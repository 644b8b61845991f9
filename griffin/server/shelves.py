"""The three shelves of one who asks: sessions, saved states, responses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal, TypeVar

from griffin.server import errors
from griffin.server.errors import ApiError
from griffin.server.http.exchange import Exchange
from griffin.server.service import Service
from griffin.sessions import Session, SessionError, Store

T = TypeVar("T")
CONVERSATION = "conv_"  # begins the name of what only POST /v1/conversations makes
Shelf = Literal["", "states", "responses"]


def shelf(service: Service, namespace: str, kind: Shelf = "") -> Store:
    """Return the store of one who asks; ApiError if this server keeps nothing."""
    if service.store is None:
        raise ApiError(
            errors.UNSUPPORTED,
            "this server keeps no sessions and states; start it with --store DIR",
        )
    kinds: tuple[Shelf, ...] = ("", "states", "responses")
    names = {each: ".".join(part for part in (namespace, each) if part) for each in kinds}
    return service.store.within(names[kind], tuple(names.values()))


@asynccontextmanager
async def opened(
    service: Service, exchange: Exchange, store: Store, name: str, open_: Callable[[], Session]
) -> AsyncIterator[Session]:
    """Hold and open a session for a block; requests of this server that have it go first."""
    key = (store.namespace, name)

    def do() -> Session:
        with service.holding.moment(key):
            return open_()

    async with service.holding.hold(exchange, key, service.seconds_left(exchange)):
        session = await service.disk(lambda: refusals(do), undo=Session.close)
        try:
            yield session
        finally:
            session.close()


async def in_turn(
    service: Service, exchange: Exchange, store: Store, name: str, do: Callable[[], T]
) -> T:
    """Do something with a session; requests of this server that have it go first."""
    key = (store.namespace, name)

    def alone() -> T:
        with service.holding.moment(key):
            return refusals(do)

    async with service.holding.hold(exchange, key, service.seconds_left(exchange)):
        return await service.disk(alone)


def refusals(do: Callable[[], T]) -> T:
    """Do something with sessions; what they refuse becomes an ApiError."""
    try:
        return do()
    except SessionError as error:
        retry_after = 1.0 if error.code == "session_busy" else None
        raise errors.of_code(error.code, str(error), retry_after=retry_after) from None
