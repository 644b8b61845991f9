"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from griffin.server import protocol as p
from griffin.server.answering import Told, answer, job
from griffin.server.constraints import Form, constrain
from griffin.server.conversations import Asked, take_up
from griffin.server.endpoints.chat.body import ChatRequest, parse_chat
from griffin.server.endpoints.chat.reply import ChatAnswer, ChatChunks, chat_completion
from griffin.server.errors import INVALID, ApiError
from griffin.server.generating import Collected, Increment, Waiting
from griffin.server.http import sse
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.service import Handler, Service
from griffin.server.tool_text import CallReader, Said, read_answer


async def chat(service: Service, exchange: Exchange) -> Reply | None:
    """Answer a conversation."""
    body = await service.body(exchange)
    asked = await service.think(len(body), lambda: parse_chat(body, service.limits))
    service.check_ready()
    model = service.check_model(asked.model)
    identity = asked.identity(exchange.headers)
    if asked.messages[-1].role == "assistant":
        raise ApiError(
            INVALID, "the last message is the assistant's; there is nothing to answer", "messages"
        )
    said = Asked(
        messages=asked.messages,
        tools=asked.tools,
        penalty=service.penalizes(asked.sampling),
        size=len(body),
    )
    thread = await take_up(service, exchange, identity, said, state=asked.state)
    try:
        form = Form.of(
            asked.format, thread.tools, asked.tool_choice, several=asked.parallel_tool_calls
        )
        grammar, passed = await constrain(service, form)
        work = job(service, thread.context, asked.sampling, n=asked.n, chat=True, grammar=grammar)
        head = p.Head.new("chatcmpl-", model, service.system_fingerprint)
        return await answer(
            service,
            exchange,
            [work],
            thread,
            _Chat(head, asked, form),
            streamed=asked.stream,
            headers=p.ignored_header((*asked.ignored, *passed)),
        )
    finally:
        await thread.close()


class _Chat:
    """A chat's answers, whole or as events."""

    def __init__(self, head: p.Head, asked: ChatRequest, form: Form) -> None:
        self._head = head
        self._form = form
        self._usage = asked.include_usage
        self._chunks = ChatChunks(head, asked.include_usage)
        self._choices = [_Choice(self._chunks, index, form) for index in range(asked.n)]

    def whole(self, answers: Sequence[Collected], told: Told) -> bytes:
        made = [_made(answer, self._form) for answer in answers]
        return p.encode(chat_completion(self._head, made, told.usage, told.extras))

    def begin(self) -> bytes:
        return b"".join(sse.data(self._chunks.role(index)) for index in range(len(self._choices)))

    def more(self, increment: Increment) -> bytes:
        return self._choices[increment.choice].more(increment)

    def end(self, told: Told) -> bytes:
        last = sse.data(self._chunks.usage(told.usage, told.extras)) if self._usage else b""
        return last + sse.DONE

    def fail(self, error: ApiError) -> bytes:
        return sse.error(error)

    def record(self, answers: Sequence[Collected] | None, told: Told) -> dict[str, Any]:
        return {}


def _made(answer: Collected, form: Form) -> ChatAnswer:
    if not form.tools:
        return ChatAnswer(text=answer.text, finish_reason=answer.finish, tokens=answer.tokens)
    read = read_answer(answer.text, form.text_first)
    tokens = answer.tokens
    if tokens is not None and read.calls:  # the tokens of calls are not the content's
        tokens = [token for token in tokens if token.offset < len(read.text)] or None
    return ChatAnswer(
        text=None if read.calls and not read.text else read.text,
        finish_reason="tool_calls" if read.whole else answer.finish,
        tokens=tokens,
        tool_calls=read.calls,
    )


class _Choice:
    """One of the answers of a streamed chat. With tools, text waits as long as it may begin a
    call."""

    def __init__(self, chunks: ChatChunks, index: int, form: Form) -> None:
        self._chunks = chunks
        self._index = index
        self._reader = CallReader(form.text_first) if form.tools else None
        self._tokens = Waiting()
        self._calls = 0

    def more(self, increment: Increment) -> bytes:
        chunks, index, reader = self._chunks, self._index, self._reader
        written = b""
        if reader is None:
            if increment.text or increment.tokens:
                written = sse.data(chunks.text(increment.text, increment.tokens, index))
        else:
            self._tokens.add(increment.tokens)
            for said in [
                *reader.feed(increment.text),
                *(reader.finish() if increment.last else []),
            ]:
                written += self._say(said, increment.tokens is not None)
            # Those that have no character.
            if increment.last and self._tokens.left and not reader.called:
                written += sse.data(chunks.text("", self._tokens.left, index))
        if increment.finish is not None:
            reason = "tool_calls" if reader is not None and reader.whole else increment.finish
            written += sse.data(chunks.finish(reason, index))
        return written

    def _say(self, said: Said, scored: bool) -> bytes:
        chunks, index = self._chunks, self._index
        if said.kind == "text":
            tokens = self._tokens.sent(said.text)
            return sse.data(chunks.text(said.text, tokens if scored else None, index))
        if said.kind == "call":
            self._calls += 1
            return sse.data(chunks.call_begin(self._calls - 1, p.new_id("call_"), said.text, index))
        if said.kind == "arguments":
            return sse.data(chunks.call_more(self._calls - 1, said.text, index))
        return b""


HANDLERS: dict[str, Handler] = {
    "POST /v1/chat/completions": chat,
}
