"""/v1/states: what was read once, for many to go on from."""

from __future__ import annotations

from contextlib import suppress

from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.conversations.carried import import_data
from griffin.server.conversations.opening import as_reader
from griffin.server.endpoints.sessions.body import parse_fork
from griffin.server.endpoints.sessions.reply import SessionObject
from griffin.server.endpoints.sessions.route import copied, model_of, session_object
from griffin.server.endpoints.states.body import StateCreate, parse_state_create
from griffin.server.endpoints.states.reply import StateList, StateObject, state_list
from griffin.server.errors import ApiError
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.kept import read_into
from griffin.server.service import Handler, Service
from griffin.server.shelves import opened, refusals, shelf
from griffin.sessions import (
    Session,
    SessionError,
    SessionExists,
    SessionInfo,
    Store,
    unfinished_name,
)


async def listed(service: Service, exchange: Exchange) -> Reply:
    """List the saved states of who asks."""
    page = p.parse_page(exchange.query)
    store = shelf(service, exchange.namespace, "states")

    def do() -> StateList:
        found = [_state_object(service, info) for info in store.list()]
        return state_list(*p.page_of(found, page, lambda one: one.created))

    return Reply(p.encode(await service.disk(lambda: refusals(do))))


async def create(service: Service, exchange: Exchange) -> Reply:
    """Save a state: by reading something, or of a session as it is at a turn."""
    body = await service.body(exchange)
    asked, ignored = await service.think(
        len(body), lambda: parse_state_create(body, service.limits)
    )
    service.check_ready()
    store = shelf(service, exchange.namespace, "states")
    if asked.model is not None or asked.reading is not None:
        service = service.serving(exchange, asked.model)
    if asked.reading is None:
        source = shelf(service, exchange.namespace)
        await service.disk(lambda: refusals(lambda: _of_session(service, source, store, asked)))
    else:
        await _by_reading(service, exchange, store, asked, asked.reading, len(body))

    def made() -> StateObject:
        return _state_object(service, store.show(asked.name))

    return Reply(p.encode(await service.disk(lambda: refusals(made))), p.ignored_header(ignored))


async def show(service: Service, exchange: Exchange) -> Reply:
    """Show a saved state."""
    store, name = _named(service, exchange)
    shown = await service.disk(lambda: refusals(lambda: _state_object(service, store.show(name))))
    return Reply(p.encode(shown))


async def delete(service: Service, exchange: Exchange) -> Reply:
    """Delete a saved state for good; sessions that began from it stay."""
    store, name = _named(service, exchange)
    await service.disk(lambda: refusals(lambda: store.delete(name)))
    return Reply(p.encode(p.Deleted(id=name, object="state.deleted")))


async def take(service: Service, exchange: Exchange) -> Reply:
    """Give a saved state away as a state file."""
    _check_data(service)
    store, name = _named(service, exchange)

    def do() -> bytes:
        with store.carrying() as path:
            store.export(name, path)
            return path.read_bytes()

    return Reply(await service.disk(lambda: refusals(do)), media="application/octet-stream")


async def put(service: Service, exchange: Exchange) -> Reply:
    """Save a state that comes as a state file."""
    _check_data(service)
    body = await service.body(
        exchange, limits=service.limits.of_octets(), media="application/octet-stream"
    )
    store, name = _named(service, exchange)

    def do() -> StateObject:
        return _state_object(service, import_data(service, store, body, "the body", name))

    return Reply(p.encode(await service.disk(do)))


def _check_data(service: Service) -> None:
    if not service.state_data:
        message = "states do not go over the wire here; a server lets them with --allow-state-data"
        raise ApiError(errors.UNSUPPORTED, message)


async def fork(service: Service, exchange: Exchange) -> Reply:
    """Begin a session from a saved state."""
    body = await service.body(exchange)
    asked, ignored = await service.think(len(body), lambda: parse_fork(body, service.limits))
    states, name = _named(service, exchange)
    store = shelf(service, exchange.namespace)

    def do() -> SessionObject:
        own = as_reader(service, states, name)
        made = copied(own, states, name, store, asked.name, asked.title)
        return session_object(service, store, store.show(made))

    return Reply(p.encode(await service.disk(lambda: refusals(do))), p.ignored_header(ignored))


def _state_object(service: Service, info: SessionInfo) -> StateObject:
    """Return a saved state as clients see it."""
    return StateObject(
        id=info.name,
        created=int(info.created),
        title=info.title,
        tokens=info.tokens,
        bytes=info.nbytes,
        parent=info.settings.get("parent"),
        model=model_of(service, info),
    )


async def _by_reading(
    service: Service,
    exchange: Exchange,
    store: Store,
    asked: StateCreate,
    reading: p.Reading,
    size: int,
) -> None:
    # Under another name until it is whole, so that nobody goes on from half a state.
    name = unfinished_name()

    def begin() -> Session:
        if asked.name in {info.name for info in store.list()}:  # said before anything long is read
            raise SessionExists(
                f"there is a state {asked.name!r} already; delete it, or choose another name"
            )
        return store.create(
            name,
            fingerprint=service.fingerprint,
            config=service.llm.model.config,
            title=asked.title or "",
        )

    try:
        async with opened(service, exchange, store, name, begin) as session:
            await read_into(service, exchange, session, reading, size=size, role="state")
            await service.disk(lambda: refusals(lambda: session.update(name=asked.name)))
    except BaseException:
        with suppress(SessionError):
            await service.disk(lambda: store.delete(name))
        raise


def _of_session(service: Service, source: Store, store: Store, asked: StateCreate) -> None:
    assert asked.session is not None
    own = service if asked.model is not None else as_reader(service, source, asked.session)
    copied(own, source, asked.session, store, asked.name, asked.title, at=asked.at)


def _named(service: Service, exchange: Exchange) -> tuple[Store, str]:
    return shelf(service, exchange.namespace, "states"), p.check_name(
        exchange.params["name"], "name"
    )


HANDLERS: dict[str, Handler] = {
    "GET /v1/states": listed,
    "POST /v1/states": create,
    "GET /v1/states/{name}": show,
    "DELETE /v1/states/{name}": delete,
    "GET /v1/states/{name}/data": take,
    "PUT /v1/states/{name}/data": put,
    "POST /v1/states/{name}/fork": fork,
}
