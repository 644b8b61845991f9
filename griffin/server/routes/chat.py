"""POST /v1/chat/completions."""

from __future__ import annotations

from griffin.grammar import CompiledGrammar
from griffin.server import protocol as p
from griffin.server.constraints import Form, constrain
from griffin.server.errors import INVALID, ApiError
from griffin.server.generating import Clock, Collected, Waiting, collect, extras, stream, used
from griffin.server.http import sse
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.keeping import Thread, chat_thread, check_state
from griffin.server.prompts import job
from griffin.server.service import Service
from griffin.server.tool_text import CallReader, Said, read_answer, with_tools
from griffin.server.writer import Piece


async def chat(service: Service, exchange: Exchange) -> Reply | None:
    """Answer a conversation."""
    body = await service.body(exchange)
    asked = await service.think(len(body), lambda: p.parse_chat(body, service.limits))
    service.check_ready()
    model = service.check_model(asked.model)
    identity = asked.identity(exchange.headers)
    form = Form.of(asked)
    messages = with_tools(asked.messages, form.tools)
    if messages[-1].role == "assistant":
        raise ApiError(
            INVALID, "the last message is the assistant's; there is nothing to answer", "messages"
        )
    check_state(asked.state, identity)
    grammar = await constrain(service, form)
    penalty = service.penalizes(asked.sampling)
    thread = await chat_thread(
        service, exchange, identity, messages, asked.state, size=len(body), penalty=penalty
    )
    try:
        head = p.Head.new("chatcmpl-", model, service.system_fingerprint)
        ignored = p.ignored_header(asked.ignored)
        return await _answer(service, exchange, asked, head, thread, form, grammar, ignored)
    finally:
        thread.close()


async def _answer(
    service: Service,
    exchange: Exchange,
    asked: p.ChatRequest,
    head: p.Head,
    thread: Thread,
    form: Form,
    grammar: CompiledGrammar | None,
    ignored: dict[str, str],
) -> Reply | None:
    work = job(service, thread.start, asked.sampling, n=asked.n, chat=True, grammar=grammar)
    run = service.start(exchange, [work], keep_state=thread.kept)
    clock = Clock()

    def told() -> p.Extras:
        return extras(service, run, clock, thread.source(run), thread.name)

    try:
        if not asked.stream:
            answers = await collect(service, exchange, run, clock)
            await thread.keep(run)
            made = [_made(answer, form) for answer in answers]
            done = p.chat_completion(head, made, used(run, thread.start.before), told())
            return Reply(p.encode(done), ignored | thread.header(run))
        chunks = _Chunks(p.ChatChunks(head, asked.include_usage), asked.n, form)

        async def end() -> bytes:
            await thread.keep(run)
            last = (
                chunks.usage(used(run, thread.start.before), told()) if asked.include_usage else b""
            )
            return last + sse.DONE

        await stream(
            service,
            exchange,
            run,
            clock,
            headers=lambda: ignored | thread.header(run),
            begin=chunks.begin,
            more=chunks.more,
            end=end,
        )
        return None
    finally:
        service.finish(exchange, run, thread.source(run))
        await thread.rescue(run)


def _made(answer: Collected, form: Form) -> p.ChatAnswer:
    if not form.tools:
        return p.ChatAnswer(text=answer.text, finish_reason=answer.finish, tokens=answer.tokens)
    read = read_answer(answer.text, form.text_first)
    tokens = answer.tokens
    if tokens is not None and read.calls:  # the tokens of calls are not the content's
        tokens = [token for token in tokens if token.offset < len(read.text)] or None
    return p.ChatAnswer(
        text=None if read.calls and not read.text else read.text,
        finish_reason="tool_calls" if read.whole else answer.finish,
        tokens=tokens,
        tool_calls=read.calls,
    )


class _Chunks:
    """The events of a streamed chat."""

    def __init__(self, chunks: p.ChatChunks, n: int, form: Form) -> None:
        self._chunks = chunks
        self._choices = [_Choice(chunks, index, form) for index in range(n)]

    def begin(self) -> bytes:
        return b"".join(sse.data(self._chunks.role(index)) for index in range(len(self._choices)))

    def more(self, piece: Piece) -> bytes:
        return self._choices[piece.choice].more(piece)

    def usage(self, cost: p.Usage, told: p.Extras) -> bytes:
        return sse.data(self._chunks.usage(cost, told))


class _Choice:
    """One of the answers of a streamed chat. With tools, text waits as long as it may begin a
    call."""

    def __init__(self, chunks: p.ChatChunks, index: int, form: Form) -> None:
        self._chunks = chunks
        self._index = index
        self._reader = CallReader(form.text_first) if form.tools else None
        self._tokens = Waiting()
        self._calls = 0

    def more(self, piece: Piece) -> bytes:
        chunks, index, reader = self._chunks, self._index, self._reader
        written = b""
        if reader is None:
            if piece.text or piece.tokens:
                written = sse.data(chunks.text(piece.text, piece.tokens, index))
        else:
            self._tokens.add(piece.tokens)
            for said in [*reader.feed(piece.text), *(reader.finish() if piece.last else [])]:
                written += self._say(said, piece.tokens is not None)
            if (
                piece.last and self._tokens.left and not reader.called
            ):  # those that have no character
                written += sse.data(chunks.text("", self._tokens.left, index))
        if piece.finish is not None:
            reason = "tool_calls" if reader is not None and reader.whole else piece.finish
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
