"""POST /v1/messages, and what a conversation would cost there."""

from __future__ import annotations

from collections.abc import Sequence

from griffin.server import protocol as p
from griffin.server.answering import Renderer, Told
from griffin.server.constraints import Form
from griffin.server.conversations import Asked, rendered
from griffin.server.endpoints.chat.body import ChatRequest
from griffin.server.endpoints.chat.route import converse
from griffin.server.endpoints.messages.body import parse_messages
from griffin.server.endpoints.messages.reply import TokenCount, assistant_message, stop_of
from griffin.server.endpoints.messages.stream import PING, MessageStream
from griffin.server.errors import ApiError
from griffin.server.generating import Collected, Increment
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.parts import AnswerPart, Parts
from griffin.server.service import Handler, Service
from griffin.server.tool_text import read_answer


async def messages(service: Service, exchange: Exchange) -> Reply | None:
    """Answer a conversation."""
    asked, size = await _asked(service, exchange)

    def render(service: Service, form: Form) -> _Message:
        return _Message(service.head("msg_"), form, exchange.id)

    return await converse(
        service,
        exchange,
        asked,
        size=size,
        render=render,
        param="output_config.format",
        tool_param="tools[{}].input_schema",
    )


async def count_tokens(service: Service, exchange: Exchange) -> Reply:
    """Count what would be read of a conversation."""
    asked, size = await _asked(service, exchange)
    service = service.serving(exchange, asked.model)
    line, _ = await rendered(service, Asked(messages=asked.messages, tools=asked.tools, size=size))
    counted = TokenCount(input_tokens=len(line.all_ids))
    return Reply(p.encode(counted), p.ignored_header(asked.ignored))


async def _asked(service: Service, exchange: Exchange) -> tuple[ChatRequest, int]:
    """Return the request, and the bytes that it was read from."""
    exchange.extra["request-id"] = exchange.id  # where Anthropic's client looks for it
    body = await service.body(exchange)
    asked = await service.think(len(body), lambda: parse_messages(body, service.limits))
    return asked, len(body)


class _Message(Renderer):
    """An answer, whole or as events."""

    alive = PING

    def __init__(self, head: p.Head, form: Form, request_id: str) -> None:
        self._head = head
        self._form = form
        self._request_id = request_id
        self._stream = MessageStream(head)
        self._parts = Parts(form)
        self._stopped = stop_of("stop", None)

    def whole(self, answers: Sequence[Collected], told: Told) -> bytes:
        answer = answers[0]
        read = read_answer(answer.text, self._form.text_first) if self._form.tools else None
        whole = read is not None and read.whole
        made = assistant_message(
            self._head,
            told.usage,
            text=answer.text if read is None else read.text,
            calls=() if read is None else read.calls,
            whole=whole,
            stopped=stop_of("tool_calls" if whole else answer.finish, answer.stop),
            extras=told.extras,
        )
        return p.encode(made)

    def begin(self, used: p.Usage) -> bytes:
        return self._stream.begin(used)

    def more(self, increment: Increment) -> bytes:
        written = b"".join(map(self._written, self._parts.take(increment)))
        if increment.finish is not None:
            self._stopped = stop_of(self._parts.finish(increment.finish), increment.stop)
            written += self._stream.close()
        return written

    def end(self, told: Told) -> bytes:
        return self._stream.end(told.usage, self._stopped, told.extras)

    def fail(self, error: ApiError) -> bytes:
        return self._stream.fail(error, self._request_id)

    def _written(self, part: AnswerPart) -> bytes:
        stream = self._stream
        if part.kind == "call":
            return stream.call(p.new_id("toolu_"), part.text)
        if part.kind == "end":
            return stream.close()
        if part.kind == "text" and not stream.in_text:
            return stream.text() + stream.more(part.text)
        return stream.more(part.text)


HANDLERS: dict[str, Handler] = {
    "POST /v1/messages": messages,
    "POST /v1/messages/count_tokens": count_tokens,
}
