"""/v1/responses: answers that can be gone on from by their id.

A response that is kept is a session of its own, named by the id, in the "responses" of who asked.
One that goes on from another is a fork of it: it shares what came before, and deleting one leaves
the other whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from griffin.grammar import CompiledGrammar
from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.constraints import Form, constrain
from griffin.server.errors import ApiError
from griffin.server.generating import Clock, Collected, Waiting, collect, extras, stream, used
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.keeping import Thread, chat_thread, check_state, go_on, refusals, sessions
from griffin.server.prompts import job
from griffin.server.protocol import Identity, listing
from griffin.server.protocol.reply import plain
from griffin.server.service import Service
from griffin.server.tool_text import CallReader, Said, read_answer, with_tools
from griffin.server.writer import Piece
from griffin.sessions import SessionError, UnknownSession


async def create(service: Service, exchange: Exchange) -> Reply | None:
    """Answer, and remember where one was."""
    body = await service.body(exchange)
    asked = await service.think(len(body), lambda: p.parse_response(body, service.limits))
    service.check_ready()
    model = service.check_model(asked.model)
    identity = asked.identity(exchange.headers)
    check_state(asked.state, identity)
    form = Form.of(asked, param="text.format", tool_param="tools[{}].parameters")
    messages = with_tools(asked.messages, form.tools)
    if messages[-1].role == "assistant":
        raise ApiError(
            errors.INVALID,
            "the input ends with the assistant's words; there is nothing to answer",
            "input",
        )
    grammar = await constrain(service, form)
    head = p.Head.new("resp_", model, service.system_fingerprint)
    penalty = service.penalizes(asked.sampling)
    kept = asked.store and service.store is not None and asked.state is None
    own = identity.kind == "response" or (identity.kind != "session" and kept)
    if own:
        thread = await _own_thread(service, exchange, identity, messages, head.id, kept, penalty)
    else:
        thread = await chat_thread(
            service,
            exchange,
            identity,
            messages,
            asked.state,
            size=len(body),
            penalty=penalty,
            param="input",
        )
    try:
        return await _answer(service, exchange, asked, head, thread, form, grammar)
    finally:
        thread.close()
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
    form: Form,
    grammar: CompiledGrammar | None,
) -> Reply | None:
    work = job(service, thread.start, asked.sampling, chat=True, grammar=grammar)
    run = service.start(exchange, [work], keep_state=thread.kept)
    clock = Clock()
    ignored = p.ignored_header(asked.ignored)

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
            output, whole = _items(answer, form)
            told = await keep(output, whole)
            cost = used(run, thread.start.before)
            status = "completed" if whole else "incomplete"
            done = p.response_object(head, asked, output, status=status, used=cost, extras=told)
            return Reply(p.encode(done), ignored | thread.header(run))
        events = _Events(p.ResponseStream(head, asked), form)

        async def end() -> bytes:
            told = await keep(events.stream.output, events.whole)
            return events.stream.end(
                used(run, thread.start.before), whole=events.whole, extras=told
            )

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
        service.finish(exchange, run, thread.source(run))
        if (
            thread.name is not None
        ):  # a named session keeps what was said; a response that failed is none
            await thread.rescue(run)


def _items(answer: Collected, form: Form) -> tuple[list[Any], bool]:
    """Return an answer's items, and whether it is whole."""
    whole = answer.finish != "length"
    if not form.tools:
        return [p.output_message(answer.text, answer.tokens, whole=whole)], whole
    read = read_answer(answer.text, form.text_first)
    if not read.calls:
        return [p.output_message(read.text, answer.tokens, whole=whole)], whole
    items: list[Any] = []
    if read.text:
        tokens = [token for token in answer.tokens or () if token.offset < len(read.text)]
        items.append(p.output_message(read.text, tokens))
    items += [p.output_call(call) for call in read.calls[:-1]]
    items.append(p.output_call(read.calls[-1], whole=read.whole))
    return items, read.whole or whole


async def _own_thread(
    service: Service,
    exchange: Exchange,
    identity: Identity,
    messages: Sequence[p.Message],
    id: str,
    kept: bool,
    penalty: bool,
) -> Thread:
    """Return the thread of a response: a fork of the one it goes on from, or a session of its
    own."""
    store = sessions(service, exchange.namespace, "responses")
    before = identity.value if identity.kind == "response" else None

    def do() -> Thread:
        if before is None:
            session = store.create(
                id, fingerprint=service.fingerprint, config=service.llm.model.config
            )
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
            thread = Thread(service, start, session, message, system)
            thread.kept = kept
            return thread
        except BaseException:
            session.close()
            store.delete(id)
            raise

    def undo(thread: Thread) -> None:
        thread.close()
        store.delete(id)

    return await service.disk(partial(refusals, do), undo=undo)


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
    """The events of a streamed response. With tools, text waits as long as it may begin a call."""

    def __init__(self, stream: p.ResponseStream, form: Form) -> None:
        self.stream = stream
        self.whole = True
        self._reader = CallReader(form.text_first) if form.tools else None
        self._tokens = Waiting()
        self._open: Literal["text", "call"] | None = None

    def begin(self) -> bytes:
        return self.stream.begin()

    def more(self, piece: Piece) -> bytes:
        reader = self._reader
        self._tokens.add(piece.tokens)
        if reader is None:
            parts = [Said("text", piece.text)]
        else:
            parts = [*reader.feed(piece.text), *(reader.finish() if piece.last else [])]
        written = b"".join(map(self._say, parts))
        if piece.finish is not None:
            called = reader is not None and reader.called
            self.whole = piece.finish != "length" or (reader is not None and reader.whole)
            if not called:
                written += self._text("", self._tokens.left)
            if self._open is not None:
                written += self.stream.close(whole=self.whole)
                self._open = None
        return written

    def _say(self, said: Said) -> bytes:
        if said.kind == "text":
            return self._text(said.text, self._tokens.sent(said.text))
        if said.kind == "call":
            closed = b"" if self._open is None else self.stream.close()
            self._open = "call"
            return closed + self.stream.call(p.new_id("call_"), said.text)
        if said.kind == "arguments":
            return self.stream.more(said.text)
        self._open = None
        return self.stream.close()

    def _text(self, text: str, tokens: Sequence[p.Scored]) -> bytes:
        """Go on with the message, which begins here if it has not."""
        written = b""
        if self._open is None:
            self._open = "text"
            written = self.stream.message()
        return written + self.stream.more(text, tokens) if text or tokens else written
