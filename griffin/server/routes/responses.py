"""/v1/responses: answers that can be gone on from by their id.

A response that is kept is a session of its own, named by the id, in the "responses" of who asked. One that
goes on from another is a fork of it: it shares what came before, and deleting one leaves the other whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.errors import ApiError
from griffin.server.exchange import Exchange, Reply
from griffin.server.generating import Clock, Collected, collect, extras, stream, used
from griffin.server.keeping import Thread, chat_thread, check_state, go_on, refusals, sessions
from griffin.server.prompts import check_free, job
from griffin.server.protocol import Identity, listing
from griffin.server.protocol.reply import plain
from griffin.server.service import Service
from griffin.server.tool_text import may_be_call, read_calls, with_tools
from griffin.server.writer import Piece
from griffin.sessions import SessionError, UnknownSession


async def create(service: Service, exchange: Exchange) -> Reply | None:
    """Answer, and remember where one was."""
    body = await service.body(exchange)
    asked = await service.think(len(body), lambda: p.parse_response(body, service.limits))
    service.check_ready()
    model = service.check_model(asked.model)
    check_free(asked.format, asked.tool_choice, "text.format")
    identity = asked.identity(exchange.headers)
    check_state(asked.state, identity)
    tools = asked.tools if asked.tool_choice.mode != "none" else ()
    messages = with_tools(asked.messages, tools)
    if messages[-1].role == "assistant":
        raise ApiError(
            errors.INVALID, "the input ends with the assistant's words; there is nothing to answer", "input"
        )
    head = p.Head.new("resp_", model, service.system_fingerprint)
    penalty = "repetition_penalty" in asked.sampling or service.llm.defaults.repetition_penalty != 1
    kept = asked.store and service.store is not None and asked.state is None
    own = identity.kind == "response" or (identity.kind != "session" and kept)
    if own:
        thread = await _own_thread(service, exchange, identity, messages, head.id, kept, penalty)
    else:
        thread = await chat_thread(
            service, exchange, identity, messages, asked.state, size=len(body), penalty=penalty, param="input"
        )
    try:
        return await _answer(service, exchange, asked, head, thread, tools)
    finally:
        await thread.close()
        if own and thread.turn is None:
            with suppress(SessionError, ApiError):
                store = sessions(service, exchange.namespace, "responses")
                await service.disk(lambda: store.delete(head.id))


async def show(service: Service, exchange: Exchange) -> Reply:
    """Show a stored response."""
    return Reply(p.encode(await _stored(service, exchange)))


async def delete(service: Service, exchange: Exchange) -> Reply:
    """Forget a stored response; those that went on from it stay."""
    await _stored(service, exchange)
    store = sessions(service, exchange.namespace, "responses")
    id = exchange.params["id"]
    await service.disk(lambda: refusals(lambda: store.delete(id)))
    return Reply(p.encode(listing.Deleted(id=id, object="response")))


async def _answer(
    service: Service,
    exchange: Exchange,
    asked: p.ResponseRequest,
    head: p.Head,
    thread: Thread,
    tools: tuple[p.Tool, ...],
) -> Reply | None:
    run = service.start(
        exchange, [job(service, thread.start, asked.sampling, chat=True)], keep_state=thread.kept
    )
    clock = Clock()
    ignored = p.ignored_header(asked.ignored)
    several = asked.parallel_tool_calls

    async def keep(output: Sequence[Any], whole: bool) -> p.Extras:
        told = extras(service, run, clock, thread.source(run), thread.name)
        cost = used(run, thread.start.before)
        status = "completed" if whole else "incomplete"
        stored = p.response_object(head, asked, output, status=status, used=cost, extras=told)
        await thread.keep(run, {"response": plain(stored)})
        return told

    try:
        if not asked.stream:
            answer = (await collect(service, exchange, run, clock))[0]
            whole = answer.finish != "length"
            output = _items(answer, tools, several, whole)
            told = await keep(output, whole)
            cost = used(run, thread.start.before)
            status = "completed" if whole else "incomplete"
            done = p.response_object(head, asked, output, status=status, used=cost, extras=told)
            return Reply(p.encode(done), ignored | thread.header(run))
        events = _Events(p.ResponseStream(head, asked), tools, several)

        async def end() -> bytes:
            told = await keep(events.stream.output, events.whole)
            return events.stream.end(used(run, thread.start.before), whole=events.whole, extras=told)

        await stream(
            service,
            exchange,
            run,
            clock,
            headers=lambda: ignored | thread.header(run),
            begin=events.begin,
            more=events.more,
            end=end,
            fail=events.stream.fail,
        )
        return None
    finally:
        service.finish(exchange, run)
        if thread.name is not None:  # a named session keeps what was said; a response that failed is none
            await thread.rescue(run)


def _items(answer: Collected, tools: tuple[p.Tool, ...], several: bool, whole: bool) -> list[Any]:
    if tools and (calls := read_calls(answer.text, tools, several)):
        return [p.output_call(call) for call in calls]
    return [p.output_message(answer.text, answer.tokens, whole=whole)]


async def _own_thread(
    service: Service,
    exchange: Exchange,
    identity: Identity,
    messages: Sequence[p.Message],
    id: str,
    kept: bool,
    penalty: bool,
) -> Thread:
    """Return the thread of a response: a fork of the one it goes on from, or a session of its own."""
    store = sessions(service, exchange.namespace, "responses")
    before = identity.value if identity.kind == "response" else None

    def do() -> Thread:
        if before is None:
            session = store.create(id, fingerprint=service.fingerprint, config=service.llm.model.config)
        else:
            p.check_name(before, "previous_response_id")
            try:
                with store.open(before, service.fingerprint) as earlier:
                    earlier.fork(id)
            except UnknownSession:
                raise _unknown(before, "previous_response_id") from None
            session = store.open(id, service.fingerprint)
        try:
            start, message, system = go_on(
                service, session, messages, penalty, whole=before is None, param="input"
            )
            thread = Thread(service, start, session, message, system, namespace=store.namespace)
            thread.kept = kept
            return thread
        except BaseException:
            session.close()
            store.delete(id)
            raise

    return await service.disk(partial(refusals, do))


async def _stored(service: Service, exchange: Exchange) -> dict[str, Any]:
    store = sessions(service, exchange.namespace, "responses")
    id = p.check_name(exchange.params["id"], "id")

    def do() -> dict[str, Any]:
        try:
            turns = store.turns(id)
        except UnknownSession:
            raise _unknown(id, "id") from None
        found = next((t.stats["response"] for t in reversed(turns) if "response" in t.stats), None)
        if found is None or found["id"] != id:
            raise _unknown(id, "id")
        return found

    return await service.disk(lambda: refusals(do))


def _unknown(id: str, param: str) -> ApiError:
    return ApiError(
        errors.NO_STATE,
        f"there is no response {id[:64]!r}; it was not stored, was deleted, or is another key's",
        param,
    )


class _Events:
    """The events of a streamed response."""

    def __init__(self, stream: p.ResponseStream, tools: tuple[p.Tool, ...], several: bool) -> None:
        self.stream = stream
        self.whole = True
        self._tools = tools
        self._several = several
        self._held: str | None = "" if tools else None
        self._tokens: list[p.Scored] = []
        self._open = False

    def begin(self) -> bytes:
        return self.stream.begin()

    def more(self, piece: Piece) -> bytes:
        text, tokens = piece.text, list(piece.tokens or ())
        if self._held is not None:
            text = self._held + text
            self._tokens += tokens
            if may_be_call(text):
                self._held = text
                if not piece.last:
                    return b""
                if calls := read_calls(text, self._tools, self._several):
                    return b"".join(self._call(call) for call in calls)
            self._held, tokens = None, self._tokens
        written = b""
        if not self._open:
            self._open = True
            written = self.stream.message()
        if text or tokens:
            written += self.stream.more(text, tokens)
        if piece.finish is not None:
            self.whole = piece.finish != "length"
            written += self.stream.close(whole=self.whole)
        return written

    def _call(self, call: p.ToolCall) -> bytes:
        return self.stream.call(call.id, call.name) + self.stream.more(call.arguments) + self.stream.close()
