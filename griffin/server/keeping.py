"""Conversations that go on: what a request follows, and where its answer is kept."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal, TypeVar

from griffin.conversation import EXCHANGE, join_exchange, split_exchange
from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.bridge import Run
from griffin.server.errors import ApiError
from griffin.server.http.exchange import Exchange
from griffin.server.logs import where
from griffin.server.prompts import Start, chat_ids
from griffin.server.protocol import Identity, Message
from griffin.server.service import Service, log
from griffin.sessions import Session, SessionError, SessionExists, Store, Turn, UnknownSession

T = TypeVar("T")
Source = Literal["session", "prefix", "none"]

_OURS = ("session_id", "conversation", "x-session-id")  # who names a session so knows what it holds


class Thread:
    """What one answer follows, and the session that keeps it, if any.

    start: where the answer begins. name: of the session. kept: the answer will be kept.
    """

    def __init__(
        self,
        service: Service,
        start: Start,
        session: Session | None = None,
        message: str = "",
        system: str | None = None,
        shown: str | None = None,
    ) -> None:
        self.start = start
        self.session = session
        self.name = shown
        self.kept = session is not None
        self.turn: Turn | None = None
        self._service = service
        self._message = message
        self._system = system
        self._tried = False

    def source(self, run: Run) -> Source:
        """Return where the answer went on from."""
        if self.start.before:
            return "session"
        return "prefix" if run.tickets[0].cached_tokens else "none"

    def header(self, run: Run) -> dict[str, str]:
        """Return the header that says so; none while nobody knows yet."""
        if any(ticket.cached_tokens is None for ticket in run.tickets):
            return {}
        cached = sum(ticket.cached_tokens or 0 for ticket in run.tickets)
        return p.state_header(self.source(run), cached + self.start.before)

    async def keep(self, run: Run, stats: dict[str, Any] | None = None) -> None:
        """Put the finished answer on the disk; ApiError if it cannot be. Nothing if it is not to be
        kept."""
        self._tried = True
        if self.session is not None and self.kept:
            await run.settle()
            await self._service.disk(lambda: refusals(partial(self._commit, run, stats or {})))

    async def rescue(self, run: Run) -> None:
        """Keep what was said of an answer that was cut short: the client has it on its screen."""
        if self._tried or self.session is None:
            return
        self._tried = True
        await run.settle()
        if run.writers[0].ids:
            try:
                await self._service.disk(lambda: self._commit(run, {"cut_short": True}))
            except (SessionError, OSError, ValueError) as error:
                log.error(
                    "the session of a request that was cut short could not be kept: %s",
                    where(error),
                )

    def close(self) -> None:
        """Give the session back."""
        if self.session is not None:
            self.session.close()

    def _commit(self, run: Run, stats: dict[str, Any]) -> None:
        session, ticket, writer = self.session, run.tickets[0], run.writers[0]
        assert session is not None
        context = ticket.context
        if not writer.ids or context is None:
            raise ValueError("the answer left no state behind")
        new = self.start.ids[len(session.pending) :]
        ids = [*new, *writer.ids]
        last = _closing(self._service, ids[-1])
        if self._system is not None and session.head is None:
            session.update(settings={**session.settings, "system": self._system})
        self.turn = session.commit(
            role=EXCHANGE,
            ids=[*ids[:-1], last],
            state=context.to("cpu").state,
            pending=[*context.pending[:-1], last],
            text=join_exchange(self._message, writer.text),
            stats={
                "system": self._system,
                "generated_tokens": len(writer.ids),
                "seed": ticket.seeds[0],
                **stats,
            },
        )


def refusals(do: Callable[[], T]) -> T:
    """Do something with sessions; what they refuse becomes an ApiError."""
    try:
        return do()
    except SessionError as error:
        retry_after = 1.0 if error.code == "session_busy" else None
        raise errors.of_code(error.code, str(error), retry_after=retry_after) from None


def sessions(
    service: Service, namespace: str, kind: Literal["", "states", "responses"] = ""
) -> Store:
    """Return the store of one who asks; ApiError if this server keeps nothing."""
    if service.store is None:
        raise ApiError(
            errors.UNSUPPORTED,
            "this server keeps no sessions and states; start it with --store DIR",
        )
    kinds = ("", "states", "responses")
    names = {each: ".".join(part for part in (namespace, each) if part) for each in kinds}
    return service.store.within(names[kind], tuple(names.values()))


def no_thread(run: Run) -> Thread:
    """Return the thread of an answer that follows nothing."""
    return _NOTHING


def check_state(state: str | None, identity: Identity) -> None:
    """Raise ApiError if a request names both a session and a state."""
    if state is not None and identity.kind in ("session", "response"):
        raise ApiError(
            errors.INVALID,
            f"state and {identity.source} both say what to go on from; begin a session from a state"
            " with POST /v1/states/{name}/fork",
            "state",
        )


def check_no_session(identity: Identity) -> None:
    """Raise ApiError for plain text that names a session: a session is a chat."""
    if identity.kind == "session" and identity.source in _OURS:
        raise ApiError(
            errors.UNSUPPORTED,
            "sessions are chats; use /v1/chat/completions, or POST /v1/sessions/{name}/append",
            identity.source,
        )


async def chat_thread(
    service: Service,
    exchange: Exchange,
    identity: Identity,
    messages: Sequence[Message],
    state: str | None,
    *,
    size: int,
    penalty: bool,
    param: str = "messages",
) -> Thread:
    """Return what a chat's answer follows; its session is open until `close`."""
    if identity.kind == "session" and (service.store is not None or identity.source in _OURS):
        store = sessions(service, exchange.namespace)
        return await service.disk(
            lambda: refusals(
                partial(_in_session, service, store, identity, messages, penalty, param)
            ),
            undo=Thread.close,
        )
    size = (
        size if service.plain_template else 1 << 30
    )  # a checkpoint's own template may take its time
    ids = await service.think(size, partial(chat_ids, service, messages, param))
    if state is None:
        start = Start(ids=ids)
    else:
        start = await saved_start(service, exchange, state, ids, penalty)
    service.check_prompt(start.ids, param)
    return Thread(service, start)


async def saved_start(
    service: Service, exchange: Exchange, state: str, ids: Sequence[int], penalty: bool
) -> Start:
    """Return where a prompt begins that follows a saved state. ids: the prompt's, BOS first."""
    store = sessions(service, exchange.namespace, "states")

    def do() -> Start:
        with store.open(state, service.fingerprint) as kept:
            return resumed(service, kept, without_bos(service, ids), penalty)

    return await service.disk(lambda: refusals(do))


def resumed(service: Service, session: Session, ids: Sequence[int], penalty: bool) -> Start:
    """Return where a prompt begins that follows a session's head. ids: what is new."""
    started = time.perf_counter()
    found = session.resume()
    if found.state is None:
        return Start(ids=[*found.pending, *ids])
    service.metrics.restore.observe(time.perf_counter() - started)
    device = service.llm.model.device
    state = (
        found.state if device.type == "cpu" else found.state.map(lambda tensor: tensor.to(device))
    )
    seen = None
    if penalty:
        seen = found.seen.marks(service.llm.model.config.vocab_size)
    return Start(ids=[*found.pending, *ids], state=state, seen=seen, before=found.read)


@asynccontextmanager
async def opened(service: Service, open_: Callable[[], Session]) -> AsyncIterator[Session]:
    """Open a session for a block."""
    session = await service.disk(lambda: refusals(open_), undo=Session.close)
    try:
        yield session
    finally:
        session.close()


def without_bos(service: Service, ids: Sequence[int]) -> Sequence[int]:
    """Return ids without the BOS they begin with: it stands before what was read already."""
    return ids[1:] if ids[0] == service.llm.tokenizer.bos_id else ids


def open_session(service: Service, store: Store, name: str) -> Session:
    """Open a session, or make it if there is none of that name."""
    try:
        return store.open(name, service.fingerprint)
    except UnknownSession:
        try:
            return store.create(
                name, fingerprint=service.fingerprint, config=service.llm.model.config
            )
        except SessionExists:  # another request was quicker
            return store.open(name, service.fingerprint)


def go_on(
    service: Service,
    session: Session,
    messages: Sequence[Message],
    penalty: bool,
    *,
    whole: bool,
    param: str = "messages",
) -> tuple[Start, str, str | None]:
    """Stand where a request goes on; return where its answer begins, the message it answers, the
    system text.

    whole: the messages are the whole conversation, of which the session may know a beginning.
           Otherwise they
    are what is new.
    On the disk the session moves only with the answer: a request that is refused leaves it where it
    was.
    """
    try:
        plain = p.turns(messages)
        chat = service.llm.chat_format
        system = plain[0]["content"] if plain[0]["role"] == "system" else None
        talk = plain[1:] if system is not None else plain
        base = next(
            (
                turn.number
                for turn in session.tree()
                if turn.parent is None and turn.role == "state"
            ),
            None,
        )
        if not whole and session.head is not None and session.head.number != base:
            ids = chat.turn_ids(talk[-1], closed=session.pending[-1] in chat.stop_ids)
        else:
            at, known = _known(session, talk, system, base)
            if at != (session.head.number if session.head else None):
                session.goto(at, keep=False)
            if known:
                ids = chat.turn_ids(talk[-1], closed=session.pending[-1] in chat.stop_ids)
            else:
                ids = chat.ids(plain)
                ids = ids if at is None else without_bos(service, ids)
    except SessionError:
        raise
    except ValueError as error:
        raise errors.of_value_error(error, param) from None
    service.check_prompt(ids, param)
    return resumed(service, session, ids, penalty), talk[-1]["content"], system


def _in_session(
    service: Service,
    store: Store,
    identity: Identity,
    messages: Sequence[Message],
    penalty: bool,
    param: str,
) -> Thread:
    session = open_session(service, store, identity.value)
    try:
        ours = identity.source in _OURS
        whole = not ours or any(message.role == "assistant" for message in messages)
        start, message, system = go_on(
            service, session, messages, penalty, whole=whole, param=param
        )
        return Thread(service, start, session, message, system, shown=session.name)
    except BaseException:
        session.close()
        raise


def _known(
    session: Session, talk: Sequence[dict[str, str]], system: str | None, base: int | None
) -> tuple[int | None, int]:
    """Return the turn up to which the session knows a conversation, and how many exchanges that is.

    All branches are looked through, by text: an edited message leads to the turn before it. What
    comes after must be one message; otherwise the conversation is read from its beginning.
    """
    tree = session.tree()
    line = {turn.number for turn in session.turns()}
    at, known = base, 0
    while 2 * known + 1 < len(talk):
        said = talk[2 * known]["content"].strip(), talk[2 * known + 1]["content"].strip()
        found = [turn for turn in tree if turn.parent == at and _says(turn, said)]
        if not known:
            own = session.settings.get("system")
            found = [turn for turn in found if turn.stats.get("system", own) == system]
        if not found:
            break
        at = max(found, key=lambda turn: (turn.number in line, turn.number)).number
        known += 1
    return (at, known) if 2 * known + 1 == len(talk) else (base, 0)


def _says(turn: Turn, said: tuple[str, str]) -> bool:
    if turn.role != EXCHANGE or turn.text is None or not turn.restorable:
        return False
    message, answer = split_exchange(turn.text)
    return (message.strip(), answer.strip()) == said


def _closing(service: Service, last: int) -> int:
    """Return what an answer ends with: of the two tokens that end one, the one that ends a turn."""
    chat = service.llm.chat_format
    if last != service.llm.tokenizer.eos_id:
        return last
    end = chat.turn_ids({"role": "user", "content": "."})[0]
    return end if end in chat.stop_ids else last


_NOTHING = Thread(None, Start(ids=()))  # pyright: ignore[reportArgumentType]  # it keeps nothing, so it needs nothing
