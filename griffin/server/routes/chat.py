"""POST /v1/chat/completions."""

from __future__ import annotations

from griffin.server import protocol as p
from griffin.server import sse
from griffin.server.errors import INVALID, ApiError
from griffin.server.exchange import Exchange, Reply
from griffin.server.generating import Clock, Collected, collect, extras, stream, used
from griffin.server.keeping import Thread, chat_thread, check_state
from griffin.server.prompts import check_free, job
from griffin.server.service import Service
from griffin.server.tool_text import may_be_call, read_calls, with_tools
from griffin.server.writer import Piece


async def chat(service: Service, exchange: Exchange) -> Reply | None:
    """Answer a conversation."""
    body = await service.body(exchange)
    asked = await service.think(len(body), lambda: p.parse_chat(body, service.limits))
    service.check_ready()
    model = service.check_model(asked.model)
    check_free(asked.format, asked.tool_choice, "response_format")
    identity = asked.identity(exchange.headers)
    tools = asked.tools if asked.tool_choice.mode != "none" else ()
    messages = with_tools(asked.messages, tools)
    if messages[-1].role == "assistant":
        raise ApiError(INVALID, "the last message is the assistant's; there is nothing to answer", "messages")
    check_state(asked.state, identity)
    penalty = "repetition_penalty" in asked.sampling or service.llm.defaults.repetition_penalty != 1
    thread = await chat_thread(
        service, exchange, identity, messages, asked.state, size=len(body), penalty=penalty
    )
    try:
        head = p.Head.new("chatcmpl-", model, service.system_fingerprint)
        ignored = p.ignored_header(asked.ignored)
        return await _answer(service, exchange, asked, head, thread, tools, ignored)
    finally:
        await thread.close()


async def _answer(
    service: Service,
    exchange: Exchange,
    asked: p.ChatRequest,
    head: p.Head,
    thread: Thread,
    tools: tuple[p.Tool, ...],
    ignored: dict[str, str],
) -> Reply | None:
    work = job(service, thread.start, asked.sampling, n=asked.n, chat=True)
    run = service.start(exchange, [work], keep_state=thread.kept)
    clock = Clock()

    def told() -> p.Extras:
        return extras(service, run, clock, thread.source(run), thread.name)

    try:
        if not asked.stream:
            answers = await collect(service, exchange, run, clock)
            await thread.keep(run)
            made = [_made(answer, tools, asked.parallel_tool_calls) for answer in answers]
            done = p.chat_completion(head, made, used(run, thread.start.before), told())
            return Reply(p.encode(done), ignored | thread.header(run))
        chunks = _Chunks(p.ChatChunks(head, asked.include_usage), asked.n, tools, asked.parallel_tool_calls)

        async def end() -> bytes:
            await thread.keep(run)
            last = chunks.usage(used(run, thread.start.before), told()) if asked.include_usage else b""
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
        service.finish(exchange, run)
        await thread.rescue(run)


def _made(answer: Collected, tools: tuple[p.Tool, ...], several: bool) -> p.ChatAnswer:
    if tools and (calls := read_calls(answer.text, tools, several)):
        return p.ChatAnswer(text=None, finish_reason="tool_calls", tool_calls=calls)
    return p.ChatAnswer(text=answer.text, finish_reason=answer.finish, tokens=answer.tokens)


class _Chunks:
    """The events of a streamed chat. With tools, what may become a call is held until it is known."""

    def __init__(self, chunks: p.ChatChunks, n: int, tools: tuple[p.Tool, ...], several: bool) -> None:
        self._chunks = chunks
        self._n = n
        self._tools = tools
        self._several = several
        self._held = ["" if tools else None for _ in range(n)]
        self._tokens: list[list[p.Scored]] = [[] for _ in range(n)]

    def begin(self) -> bytes:
        return b"".join(sse.data(self._chunks.role(index)) for index in range(self._n))

    def more(self, piece: Piece) -> bytes:
        chunks, index, held = self._chunks, piece.choice, self._held[piece.choice]
        text, tokens = piece.text, piece.tokens
        if held is not None:
            text = held + text
            self._tokens[index] += tokens or []
            if may_be_call(text):
                self._held[index] = text
                if not piece.last:
                    return b""
                if calls := read_calls(text, self._tools, self._several):
                    return self._calls(calls, index)
            self._held[index] = None
            tokens = self._tokens[index] if tokens is not None else None
        written = sse.data(chunks.text(text, tokens, index)) if text or tokens else b""
        if piece.finish is not None:
            written += sse.data(chunks.finish(piece.finish, index))
        return written

    def usage(self, cost: p.Usage, told: p.Extras) -> bytes:
        return sse.data(self._chunks.usage(cost, told))

    def _calls(self, calls: list[p.ToolCall], index: int) -> bytes:
        chunks = self._chunks
        written = b""
        for number, call in enumerate(calls):
            written += sse.data(chunks.call_begin(number, call.id, call.name, index))
            written += sse.data(chunks.call_more(number, call.arguments, index))
        return written + sse.data(chunks.finish("tool_calls", index))
