"""/v1/responses: answers that can be gone on from by their id.

A response that is kept is a session of its own, named by the id, in the "responses" of who asked.
One that goes on from another is a fork of it: it shares what came before, and deleting one leaves
the other whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from griffin.server import protocol as p
from griffin.server.answering import Renderer, Told, answer, job
from griffin.server.constraints import Form, constrain
from griffin.server.conversations import Asked, take_up, unknown_response
from griffin.server.conversations.items import item_page, look_up
from griffin.server.endpoints.responses.body import ResponseRequest, parse_response
from griffin.server.endpoints.responses.reply import (
    InputTokens,
    ResponseObject,
    output_call,
    output_message,
    response_object,
)
from griffin.server.endpoints.responses.stream import ResponseStream
from griffin.server.errors import ApiError
from griffin.server.generating import Collected, Increment
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.parts import AnswerPart, Parts
from griffin.server.protocol.items import messages_of
from griffin.server.protocol.reply import plain
from griffin.server.service import Handler, Service
from griffin.server.shelves import CONVERSATION, refusals, shelf
from griffin.server.tool_text import read_answer
from griffin.sessions import Store, UnknownSession


async def create(service: Service, exchange: Exchange) -> Reply | None:
    """Answer, and remember where one was."""
    body = await service.body(exchange)
    asked = await service.think(len(body), lambda: parse_response(body, service.limits))
    service.check_ready()
    service = service.serving(exchange, asked.model)
    identity = asked.identity(exchange.headers)
    said = await _said(service, exchange, asked, len(body))
    head = service.head("resp_")
    kept = asked.store and service.store is not None and asked.state is None
    thread = await take_up(
        service, exchange, identity, said, state=asked.state, response=head.id if kept else None
    )
    try:
        form = Form.of(
            *(asked.format, thread.tools, asked.tool_choice),
            several=asked.parallel_tool_calls,
            param="text.format",
            tool_param="tools[{}].parameters",
        )
        grammar, passed = await constrain(service, form, thread.begun)
        work = job(service, thread.context, asked.sampling, chat=True, grammar=grammar)
        return await answer(
            service,
            exchange,
            [work],
            thread,
            _Response(head, asked, form.after(thread.begun)),
            streamed=asked.stream,
            headers=p.ignored_header((*asked.ignored, *passed)),
        )
    finally:
        await thread.close()


async def input_tokens(service: Service, exchange: Exchange) -> Reply:
    """Count the tokens that an answer would follow; nothing is begun, and nothing changes."""
    body = await service.body(exchange)
    asked = await service.think(len(body), lambda: parse_response(body, service.limits))
    service.check_ready()
    service = service.serving(exchange, asked.model)
    identity = asked.identity(exchange.headers)
    said = await _said(service, exchange, asked, len(body))
    if identity.kind in ("session", "conversation"):
        store, name = shelf(service, exchange.namespace), identity.value
        there = await service.disk(lambda: refusals(lambda: _is_there(store, name)))
        if not there and not name.startswith(CONVERSATION):
            identity = p.Identity("none")  # it would begin with the answer
    thread = await take_up(service, exchange, identity, said, state=asked.state)
    try:
        counted = InputTokens(input_tokens=thread.context.tokens)
    finally:
        await thread.close()
    return Reply(p.encode(counted), p.ignored_header(asked.ignored))


def _is_there(store: Store, name: str) -> bool:
    try:
        store.show(name)
    except UnknownSession:
        return False
    return True


async def _said(service: Service, exchange: Exchange, asked: ResponseRequest, size: int) -> Asked:
    """Return what a request says of its conversation, with what it refers to. size: its bytes."""
    items = await look_up(service, exchange, asked.items, "input")
    return Asked(
        messages=messages_of(items, "input"),
        tools=asked.tools,
        instructions=asked.instructions,
        param="input",
        penalty=service.penalizes(asked.sampling),
        size=size,
        items=items,
    )


async def show(service: Service, exchange: Exchange) -> Reply:
    """Show a stored response."""
    return Reply(p.encode(await _stored(service, exchange)))


async def input_items(service: Service, exchange: Exchange) -> Reply:
    """List what a stored response was asked: the items of that request."""
    page = p.parse_page(exchange.query)
    found = await _stored(service, exchange)
    store = shelf(service, exchange.namespace, "responses")

    def do() -> bytes:
        return p.encode(item_page(service, store, found["id"], page, given=True))

    return Reply(await service.disk(lambda: refusals(do)))


async def delete(service: Service, exchange: Exchange) -> Reply:
    """Forget a stored response; those that went on from it stay."""
    await _stored(service, exchange)
    store = shelf(service, exchange.namespace, "responses")
    id = exchange.params["id"]
    await service.disk(lambda: refusals(lambda: store.delete(id)))
    return Reply(p.encode(p.Deleted(id=id, object="response")))


class _Response(Renderer):
    """A response, whole or as events."""

    def __init__(self, head: p.Head, asked: ResponseRequest, form: Form) -> None:
        self._head = head
        self._asked = asked
        self._form = form
        self._events = _Events(ResponseStream(head, asked), form)
        self._whole: ResponseObject | None = None

    def whole(self, answers: Sequence[Collected], told: Told) -> bytes:
        return p.encode(self._made(answers, told))

    def begin(self, used: p.Usage) -> bytes:
        return self._events.begin()

    def more(self, increment: Increment) -> bytes:
        return self._events.more(increment)

    def end(self, told: Told) -> bytes:
        whole = self._events.whole
        return self._events.stream.end(told.usage, whole=whole, extras=told.extras)

    def fail(self, error: ApiError) -> bytes:
        return self._events.stream.fail(error)

    def record(self, answers: Sequence[Collected] | None, told: Told) -> dict[str, Any]:
        if answers is None:
            made = self._object(self._events.stream.output, self._events.whole, told)
        else:
            made = self._made(answers, told)
        return {"response": plain(made)}

    def _made(self, answers: Sequence[Collected], told: Told) -> ResponseObject:
        """Return the response of whole answers: what is kept is what is sent, ids of items too."""
        if self._whole is None:
            self._whole = self._object(*_items(answers[0], self._form), told)
        return self._whole

    def _object(self, output: Sequence[Any], whole: bool, told: Told) -> ResponseObject:
        status = "completed" if whole else "incomplete"
        return response_object(
            self._head, self._asked, output, status=status, used=told.usage, extras=told.extras
        )


def _items(answer: Collected, form: Form) -> tuple[list[Any], bool]:
    """Return an answer's items, and whether it is whole."""
    whole = answer.finish != "length"
    if not form.tools:
        return [output_message(answer.text, answer.tokens, whole=whole)], whole
    read = read_answer(answer.text, form.text_first)
    if not read.calls:
        return [output_message(read.text, answer.tokens, whole=whole)], whole
    items: list[Any] = []
    if read.text:
        tokens = [token for token in answer.tokens or () if token.offset < len(read.text)]
        items.append(output_message(read.text, tokens))
    items += [output_call(call) for call in read.calls[:-1]]
    items.append(output_call(read.calls[-1], whole=read.whole))
    return items, read.whole or whole


async def _stored(service: Service, exchange: Exchange) -> dict[str, Any]:
    store = shelf(service, exchange.namespace, "responses")
    id = p.check_name(exchange.params["id"], "id")

    def do() -> dict[str, Any]:
        try:
            turns = store.turns(id)
        except UnknownSession:
            raise unknown_response(id, "id") from None
        found = next((t.stats["response"] for t in reversed(turns) if "response" in t.stats), None)
        if found is None or found["id"] != id:
            raise unknown_response(id, "id")
        return found

    return await service.disk(lambda: refusals(do))


class _Events:
    """The events of a streamed response."""

    def __init__(self, stream: ResponseStream, form: Form) -> None:
        self.stream = stream
        self.whole = True
        self._parts = Parts(form)
        self._open: Literal["text", "call"] | None = None

    def begin(self) -> bytes:
        return self.stream.begin()

    def more(self, increment: Increment) -> bytes:
        written = b"".join(map(self._say, self._parts.take(increment)))
        if increment.finish is not None:
            self.whole = increment.finish != "length" or self._parts.whole
            if not self._parts.called:
                written += self._text("", ())
            if self._open is not None:
                written += self.stream.close(whole=self.whole)
                self._open = None
        return written

    def _say(self, part: AnswerPart) -> bytes:
        if part.kind == "text":
            return self._text(part.text, part.tokens or ())
        if part.kind == "call":
            closed = b"" if self._open is None else self.stream.close()
            self._open = "call"
            return closed + self.stream.call(p.new_id("call_"), part.text)
        if part.kind == "arguments":
            return self.stream.more(part.text)
        self._open = None
        return self.stream.close()

    def _text(self, text: str, tokens: Sequence[p.Scored]) -> bytes:
        """Go on with the message, which begins here if it has not."""
        written = b""
        if self._open is None:
            self._open = "text"
            written = self.stream.message()
        return written + self.stream.more(text, tokens) if text or tokens else written


HANDLERS: dict[str, Handler] = {
    "POST /v1/responses": create,
    "POST /v1/responses/input_tokens": input_tokens,
    "GET /v1/responses/{id}": show,
    "DELETE /v1/responses/{id}": delete,
    "GET /v1/responses/{id}/input_items": input_items,
}
