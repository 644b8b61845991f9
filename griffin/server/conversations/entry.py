"""Take up the conversation that a request goes on with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial

from griffin.conversation import turns
from griffin.conversation.turns import Place, Transcript
from griffin.engine import Context
from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.conversations.asked import Asked, settings_of, words_of
from griffin.server.conversations.carried import Carried, session_in_memory
from griffin.server.conversations.items import check_no_conversation, with_items
from griffin.server.conversations.opening import open_kept, open_session
from griffin.server.conversations.plan import SessionPlan, blaming, marked, plan_in
from griffin.server.conversations.thread import Held, Hinted, Thread
from griffin.server.errors import ApiError
from griffin.server.http.exchange import Exchange
from griffin.server.logs import where
from griffin.server.protocol import Identity, Message
from griffin.server.protocol.messages import check_end
from griffin.server.service import Service, log
from griffin.server.shelves import refusals, shelf
from griffin.sessions import (
    Session,
    SessionError,
    StateMismatch,
    Store,
    UnknownSession,
    unfinished_name,
)

# What goes on from these brings instructions and tools of its own.
OWN_WORDS = ("conversation", "response")


async def take_up(
    service: Service,
    exchange: Exchange,
    identity: Identity,
    asked: Asked,
    *,
    state: str | None = None,
    response: str | None = None,
) -> Thread:
    """Return what an answer to a conversation follows; it is held until `close`.

    state:    a saved state that lies before everything.
    response: the id under which the answer is to be kept; None if it is not to be.
    Raises ApiError for what cannot be gone on with as asked.
    """
    check_end(asked.messages, param=asked.param)
    begins = response is not None and not identity.named
    if asked.instructions is not None and not begins and identity.kind not in OWN_WORDS:
        system = Message("system", asked.instructions)
        asked = replace(asked, messages=(system, *asked.messages), instructions=None)
    if state is not None:
        return await _after_state(service, exchange, identity, asked, state)
    if identity.kind == "response" or begins:
        return await _response(service, exchange, identity, asked, response)
    if identity.named:
        return await _named(service, exchange, identity, asked, response)

    line, system = await rendered(service, asked)
    tools = asked.tools or ()
    if identity.kind != "hint" or service.store is None:
        return Thread(Context().then(line.all_ids), tools, begun=line.begun)
    store = shelf(service, exchange.namespace)
    look = partial(_look, service, store, identity.value, line, asked.penalty)
    place, context = await service.disk(look)
    plan = SessionPlan(place, context, tools, settings_of(system, tools))
    return Hinted(service, store, identity.value, line, plan)


async def carry(
    service: Service,
    exchange: Exchange,
    identity: Identity,
    asked: Asked,
    *,
    state: str | None,
    data: bytes | None,
    returns: bool,
) -> Thread:
    """Return what an answer follows whose state comes with the request, or goes with the answer.

    state, data: a saved state, or one that was sent, that lies before everything. returns: the
    answer's is wanted. Nothing of it is kept. Raises ApiError for what cannot be gone on with.
    """
    check_end(asked.messages, param=asked.param)
    if identity.named:
        name = "return_state" if data is None else "state_data"
        message = f"{name} beside {identity.source}: what carries its state keeps nothing here"
        raise ApiError(errors.INVALID, message, name)
    store = None if state is None else shelf(service, exchange.namespace, "states")

    def do() -> Thread:
        if store is None or state is None:
            session = session_in_memory(service, data, None)
        else:
            with (
                service.holding.moment((store.namespace, state)),
                open_kept(service, store, state) as kept,
            ):
                session = session_in_memory(service, None, kept)
        plan = _planned(service, session, asked)
        if returns:
            return Carried(service, session, plan)
        session.close()
        return Thread(plan.context, plan.tools, begun=plan.place.rest.begun)

    return await service.disk(partial(refusals, do))


async def rendered(service: Service, asked: Asked) -> tuple[Transcript, str | None]:
    """Return a whole conversation as what is read of it, and its system text, None if it has none.

    Raises ApiError for what cannot be one, and for one that is too long.
    """

    def render() -> tuple[Transcript, str | None]:
        system, talk = asked.said()
        words = words_of(asked.tools or (), system)
        return turns.whole(service.llm.chat_format, talk, words), system

    # A checkpoint's own template may take its time.
    size = asked.size if service.plain_template else 1 << 30
    line, system = await service.think(size, lambda: blaming(asked.param, render))
    service.check_prompt(line.all_ids, asked.param)
    return line, system


# What a request names.


async def _named(
    service: Service, exchange: Exchange, identity: Identity, asked: Asked, response: str | None
) -> Thread:
    """Go on in a session, when its turn comes; one that is not there begins."""
    store = shelf(service, exchange.namespace)
    key = (store.namespace, identity.value)
    forked = None
    if response is not None:
        forked = (shelf(service, exchange.namespace, "responses").namespace, response)

    def do() -> Held:
        with service.holding.moment(key):
            session = open_session(service, store, identity.value)
        said = asked
        try:
            if identity.kind != "conversation":
                check_no_conversation(session, identity.source)
            said = with_items(service, store, session, asked)
        except BaseException:
            session.close()
            raise
        plan = _planned(service, session, said, own_words=identity.kind in OWN_WORDS)
        return Held(
            service,
            session,
            plan,
            name=session.name,
            response=forked,
            given=asked.items,
            listed=said.whole,
        )

    async with AsyncExitStack() as stack:
        seconds = service.seconds_left(exchange)
        await stack.enter_async_context(service.holding.hold(exchange, key, seconds))
        thread = await service.disk(partial(refusals, do), undo=lambda held: held.session.close())
        thread.held = stack.pop_all()
    return thread


async def _response(
    service: Service, exchange: Exchange, identity: Identity, asked: Asked, response: str | None
) -> Thread:
    """Go on from an earlier response, or begin one.

    The answer has a session of its own, a fork of the earlier one. It gets the response's id with
    the answer; until then nobody sees it.
    """
    store = shelf(service, exchange.namespace, "responses")
    before = identity.value if identity.kind == "response" else None
    name = unfinished_name()

    def do() -> Held:
        if before is None:
            config = service.llm.model.config
            session = store.create(name, fingerprint=service.fingerprint, config=config)
        else:
            p.check_name(before, "previous_response_id")
            try:
                with (
                    service.holding.moment((store.namespace, before)),
                    open_kept(service, store, before) as earlier,
                ):
                    earlier.fork(name, whole=True)
            except UnknownSession:
                raise unknown_response(before, "previous_response_id") from None
            session = store.open(name, service.fingerprint)
        try:
            plan = _planned(service, session, asked, own_words=True)
        except BaseException:
            store.delete(name)
            raise
        return Held(
            service,
            session,
            plan,
            becomes=response,
            given=asked.items,
            keeps=response is not None,
        )

    def undo(thread: Held) -> None:
        thread.session.close()
        store.delete(name)

    thread = await service.disk(partial(refusals, do), undo=undo)

    async def forget() -> None:
        if thread.turn is None:  # there is no such response
            with suppress(SessionError):
                await service.disk(lambda: store.delete(name))

    thread.held.push_async_callback(forget)
    return thread


async def _after_state(
    service: Service, exchange: Exchange, identity: Identity, asked: Asked, state: str
) -> Thread:
    """Go on from a saved state, which stays as it is."""
    if identity.named:
        raise ApiError(
            errors.INVALID,
            f"state and {identity.source} both say what to go on from; begin a session from a state"
            " with POST /v1/states/{name}/fork",
            "state",
        )
    store = shelf(service, exchange.namespace, "states")

    def do() -> Thread:
        with (
            service.holding.moment((store.namespace, state)),
            open_kept(service, store, state) as kept,
        ):
            plan = _planned(service, kept, asked)
        return Thread(plan.context, plan.tools, begun=plan.place.rest.begun)

    return await service.disk(partial(refusals, do))


def _planned(
    service: Service, session: Session, asked: Asked, *, own_words: bool = False
) -> SessionPlan:
    """Find where a request goes on in a session, which is closed if it cannot.

    On the disk the session moves only with the answer: a request that is refused leaves it where it
    was.
    """
    try:
        return blaming(asked.param, lambda: plan_in(service, session, asked, own_words))
    except BaseException:
        session.close()
        raise


async def saved(service: Service, exchange: Exchange, state: str, penalty: bool) -> Context:
    """Return where a saved state leads, for a text that follows it."""
    store = shelf(service, exchange.namespace, "states")

    def do() -> Context:
        with (
            service.holding.moment((store.namespace, state)),
            open_kept(service, store, state) as kept,
        ):
            return marked(service, kept.resume(), penalty)

    return await service.disk(partial(refusals, do))


def without_bos(service: Service, ids: Sequence[int]) -> Sequence[int]:
    """Return ids without the BOS they begin with: it stands before what was read already."""
    return ids[1:] if ids[0] == service.llm.tokenizer.bos_id else ids


def _look(
    service: Service, store: Store, name: str, line: Transcript, penalty: bool
) -> tuple[Place, Context]:
    """Return where an answer to a line begins, after what a session knows of it, if anything."""
    key = (store.namespace, name)
    try:
        if not service.holding.is_held(key):
            with service.holding.moment(key), store.open(name, service.fingerprint) as session:
                place = turns.find(service.llm.chat_format, session.tree(), line)
                if place.turn is not None:
                    session.goto(place.turn, keep=False)
                    context = session.resume().then(place.rest.all_ids)
                    return place, marked(service, context, penalty)
    except (UnknownSession, StateMismatch):  # or it is another model's
        pass
    except (SessionError, OSError) as error:
        log.warning("the session of a hint could not be read: %s", where(error))
    return Place(None, line), Context().then(line.all_ids)


def unknown_response(id: str, param: str) -> ApiError:
    """Return the refusal for a response that is not kept."""
    return ApiError(
        errors.NO_STATE,
        f"there is no response {id[:64]!r}; it was not stored, was deleted, or is another key's",
        param,
    )
