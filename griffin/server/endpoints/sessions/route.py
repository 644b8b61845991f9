"""/v1/sessions: conversations that stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from griffin.server import protocol as p
from griffin.server.conversations.items import check_no_conversation
from griffin.server.conversations.opening import as_reader, check_reader
from griffin.server.endpoints.sessions.body import (
    parse_append,
    parse_fork,
    parse_rewind,
    parse_search,
    parse_session_change,
    parse_session_create,
)
from griffin.server.endpoints.sessions.reply import (
    Appended,
    SessionList,
    SessionObject,
    TurnList,
    TurnObject,
    session_list,
)
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.kept import read_into
from griffin.server.served import reader_of
from griffin.server.service import Handler, Service
from griffin.server.shelves import in_turn, opened, refusals, shelf
from griffin.sessions import SessionInfo, Store, Turn

T = TypeVar("T")


async def listed(service: Service, exchange: Exchange) -> Reply:
    """List the sessions of who asks."""
    page, words = p.parse_page(exchange.query), parse_search(exchange.query)
    store = shelf(service, exchange.namespace)

    def do() -> SessionList:
        found = [session_object(service, store, info) for info in store.list(words)]
        return session_list(*p.page_of(found, page, lambda one: one.last_used))

    return Reply(p.encode(await service.disk(lambda: refusals(do))))


async def create(service: Service, exchange: Exchange) -> Reply:
    """Create a session, empty or going on from a saved state."""
    body = await service.body(exchange)
    asked, ignored = await service.think(
        len(body), lambda: parse_session_create(body, service.limits)
    )
    store = shelf(service, exchange.namespace)
    states = shelf(service, exchange.namespace, "states")
    if asked.model is not None or asked.state is None:
        service = service.serving(exchange, asked.model)

    def do() -> str:
        if asked.state is not None:
            own = service if asked.model is not None else as_reader(service, states, asked.state)
            return copied(own, states, asked.state, store, asked.name, asked.title)
        config = service.llm.model.config
        made = store.create(
            asked.name, fingerprint=service.fingerprint, config=config, title=asked.title or ""
        )
        made.close()
        return made.name

    return await _shown(service, store, do, ignored)


async def show(service: Service, exchange: Exchange) -> Reply:
    """Show a session."""
    store, name = _named(service, exchange)
    return await _shown(service, store, lambda: name)


async def change(service: Service, exchange: Exchange) -> Reply:
    """Give a session another name or title."""
    body = await service.body(exchange)
    asked, ignored = await service.think(
        len(body), lambda: parse_session_change(body, service.limits)
    )
    store, name = _named(service, exchange)

    def do() -> str:
        if asked.title is not None:
            with store.open(name, as_reader(service, store, name).fingerprint) as session:
                session.update(title=asked.title)
        if asked.name is not None and asked.name != name:
            store.rename(name, asked.name)
            return asked.name
        return name

    changed = await in_turn(service, exchange, store, name, do)
    return await _shown(service, store, lambda: changed, ignored)


async def delete(service: Service, exchange: Exchange) -> Reply:
    """Delete a session for good."""
    store, name = _named(service, exchange)
    await in_turn(service, exchange, store, name, lambda: store.delete(name))
    return Reply(p.encode(p.Deleted(id=name, object="session.deleted")))


async def turns(service: Service, exchange: Exchange) -> Reply:
    """List a session's turns, those of all branches."""
    store, name = _named(service, exchange)

    def do() -> TurnList:
        head = store.show(
            name
        ).head  # before the turns: one that is added in between is then in the list
        found = store.turns(name)
        line = _line_to(found, head)
        return TurnList(data=[_turn_object(turn, line) for turn in found])

    return Reply(p.encode(await service.disk(lambda: refusals(do))))


async def fork(service: Service, exchange: Exchange) -> Reply:
    """Go on from a session in two ways; both share what came before."""
    body = await service.body(exchange)
    asked, ignored = await service.think(len(body), lambda: parse_fork(body, service.limits))
    store, name = _named(service, exchange)

    def do() -> str:
        with store.open(name, as_reader(service, store, name).fingerprint) as session:
            return session.fork(asked.name, at=asked.at, title=asked.title)

    made = await in_turn(service, exchange, store, name, do)
    return await _shown(service, store, lambda: made, ignored)


async def rewind(service: Service, exchange: Exchange) -> Reply:
    """Undo turns, or go to one of any branch."""
    body = await service.body(exchange)
    asked, ignored = await service.think(len(body), lambda: parse_rewind(body, service.limits))
    store, name = _named(service, exchange)

    def do() -> None:
        with store.open(name, as_reader(service, store, name).fingerprint) as session:
            check_no_conversation(session, "name")
            if asked.to is not None:
                session.goto(asked.to)
            else:
                session.undo(asked.turns or 1)

    await in_turn(service, exchange, store, name, do)
    return await _shown(service, store, lambda: name, ignored)


async def append(service: Service, exchange: Exchange) -> Reply:
    """Read on without answering."""
    body = await service.body(exchange)
    reading, ignored = await service.think(len(body), lambda: parse_append(body, service.limits))
    service.check_ready()
    store, name = _named(service, exchange)
    service = await service.disk(lambda: refusals(lambda: as_reader(service, store, name)))
    exchange.model = service.name
    open_ = partial(store.open, name, service.fingerprint)
    async with opened(service, exchange, store, name, open_) as session:
        check_no_conversation(session, "name")
        count = await read_into(service, exchange, session, reading, size=len(body))
        done = Appended(id=name, tokens_read=count, tokens_seen=session.tokens)
    return Reply(p.encode(done), p.ignored_header(ignored))


def copied(
    service: Service,
    source: Store,
    name: str,
    target: Store,
    new: str | None,
    title: str | None,
    *,
    at: int | None = None,
) -> str:
    """Carry a session or state of one shelf to another, and return its name there.

    at: which turn, if not where it stands.
    """
    check_reader(service, source, name)
    with target.carrying() as path:
        source.export(name, path, at=at)
        return target.import_(path, new, fingerprint=service.fingerprint, title=title).name


def session_object(service: Service, store: Store, info: SessionInfo) -> SessionObject:
    """Return a session as clients see it."""
    return SessionObject(
        id=info.name,
        created=int(info.created),
        last_used=int(info.used),
        title=info.title,
        tokens=info.tokens,
        turns=info.turns,
        bytes=info.nbytes,
        head=info.head,
        system=info.settings.get("system"),
        parent=info.parent or None,
        model=model_of(service, info),
        busy=store.busy(info.name),
    )


def model_of(service: Service, info: SessionInfo) -> str | None:
    """Return the name of the model that a session or a state belongs to; None if it is not
    served."""
    own = reader_of(service.models, info.fingerprint)
    return None if own is None else own.name


def _turn_object(turn: Turn, line: set[int]) -> TurnObject:
    """Return a turn as clients see it. line: the turns up to where the session stands."""
    return TurnObject(
        id=turn.number,
        parent=turn.parent,
        role=turn.role,
        text=turn.text,
        tokens=turn.tokens,
        created=int(turn.created),
        current=turn.number in line,
        finish_reason=turn.stats.get("finish_reason"),
    )


def _line_to(turns: Sequence[Turn], head: int | None) -> set[int]:
    """Return the numbers of the turns that lead to a head."""
    above = {turn.number: turn.parent for turn in turns}
    line: set[int] = set()
    while head is not None:
        line.add(head)
        head = above[head]
    return line


def _named(service: Service, exchange: Exchange) -> tuple[Store, str]:
    name = p.check_name(exchange.params["name"], "name")
    return shelf(service, exchange.namespace), name


async def _shown(
    service: Service, store: Store, do: Callable[[], str], ignored: tuple[str, ...] = ()
) -> Reply:
    """Do something that gives a session's name, and answer with that session."""
    shown = await service.disk(
        lambda: refusals(lambda: session_object(service, store, store.show(do())))
    )
    return Reply(p.encode(shown), p.ignored_header(ignored))


HANDLERS: dict[str, Handler] = {
    "GET /v1/sessions": listed,
    "POST /v1/sessions": create,
    "GET /v1/sessions/{name}": show,
    "PATCH /v1/sessions/{name}": change,
    "DELETE /v1/sessions/{name}": delete,
    "GET /v1/sessions/{name}/turns": turns,
    "POST /v1/sessions/{name}/fork": fork,
    "POST /v1/sessions/{name}/rewind": rewind,
    "POST /v1/sessions/{name}/append": append,
}
