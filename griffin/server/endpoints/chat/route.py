"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from msgspec import UNSET

from griffin.engine import Context
from griffin.server import protocol as p
from griffin.server.answering import Renderer, Told, answer, job
from griffin.server.constraints import Form, constrain
from griffin.server.conversations import Asked, Thread, carry, take_up
from griffin.server.endpoints.chat.body import ChatRequest, parse_chat
from griffin.server.endpoints.chat.reply import ChatAnswer, ChatChunks, chat_completion
from griffin.server.errors import UNSUPPORTED, ApiError
from griffin.server.generating import Collected, Increment
from griffin.server.http import sse
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.parts import AnswerPart, Parts
from griffin.server.prompt_scores import prompt_logprobs
from griffin.server.protocol.telling import PromptProgress, Telling, last_of
from griffin.server.service import Handler, Service
from griffin.server.tool_text import read_answer


async def chat(service: Service, exchange: Exchange) -> Reply | None:
    """Answer a conversation."""
    states, limits = service.state_data, service.limits
    body = await service.body(exchange, limits=limits.with_state() if states else limits)
    asked = await service.think(len(body), lambda: parse_chat(body, limits, states=states))
    return await converse(
        service,
        exchange,
        asked,
        size=len(body),
        render=lambda service, form: _Chat(service.head("chatcmpl-"), asked, form),
    )


async def converse(
    service: Service,
    exchange: Exchange,
    asked: ChatRequest,
    *,
    size: int,
    render: Callable[[Service, Form], Renderer],
    **params: str,
) -> Reply | None:
    """Answer a conversation that came in any dialect.

    size:   bytes of the body. render: given the service as it answers with the model that is
            asked for, and the answer's form, what writes.
    params: where the request's fields stand, as Form has them, if not where a chat's do.
    """
    service.check_ready()
    service = service.serving(exchange, asked.model)
    identity = asked.identity(exchange.headers)
    if asked.truncate is not None:
        identity = _unkept(asked, identity)
    said = Asked(
        messages=asked.messages,
        tools=asked.tools,
        penalty=service.penalizes(asked.sampling),
        size=size,
    )
    if asked.state_data is not None or asked.return_state:
        thread = await carry(
            *(service, exchange, identity, said),
            state=asked.state,
            data=asked.state_data,
            returns=asked.return_state,
        )
    else:
        thread = await take_up(service, exchange, identity, said, state=asked.state)
    try:
        if asked.truncate is not None:
            ids = last_of(thread.context.pending, asked.truncate, text=False)
            thread.context = Context().then(ids)
        form = Form.of(
            *(asked.format, thread.tools, asked.tool_choice),
            several=asked.parallel_tool_calls,
            **params,
        )
        grammar, passed = await constrain(service, form, thread.begun)
        work = job(
            *(service, thread.context, asked.sampling),
            n=asked.n,
            chat=True,
            grammar=grammar,
            telling=asked.telling,
        )
        renderer = render(service, form.after(thread.begun))
        renderer.prompt = await _prompt(service, exchange, asked.telling, thread)
        return await answer(
            service,
            exchange,
            [work],
            thread,
            renderer,
            streamed=asked.stream,
            headers=p.ignored_header((*asked.ignored, *passed)),
        )
    finally:
        await thread.close()


def _unkept(asked: ChatRequest, identity: p.Identity) -> p.Identity:
    """Return what a prompt that is cut goes on with: nothing. ApiError if it names something."""
    carried = asked.state_data is not None or asked.return_state
    if identity.named or asked.state is not None or carried:
        raise ApiError(
            UNSUPPORTED,
            "what follows a session or a state is read whole; leave truncate_prompt_tokens out",
            "truncate_prompt_tokens",
        )
    return p.Identity("none")


async def _prompt(
    service: Service, exchange: Exchange, telling: Telling, thread: Thread
) -> dict[str, Any]:
    """Return what an answer tells of the prompt, by its fields."""
    told: dict[str, Any] = {}
    if telling.token_ids:
        told["prompt_token_ids"] = None if thread.prompt is None else list(thread.prompt)
    if telling.prompt_logprobs is not None:
        if thread.prompt is None:
            message = "what was read in a session or a state cannot be measured any more"
            raise ApiError(UNSUPPORTED, f"prompt_logprobs: {message}", "prompt_logprobs")
        measured = await prompt_logprobs(
            service, exchange, [thread.prompt], telling.prompt_logprobs
        )
        told["prompt_logprobs"] = measured[0]
    return told


class _Chat(Renderer):
    """A chat's answers, whole or as events."""

    def __init__(self, head: p.Head, asked: ChatRequest, form: Form) -> None:
        self._head = head
        self._form = form
        self._telling = asked.telling
        self._last = asked.include_usage or asked.return_state
        self._generated = 0
        self._chunks = ChatChunks(head, asked.include_usage)
        self._choices = [_Choice(self._chunks, index, form) for index in range(asked.n)]

    def whole(self, answers: Sequence[Collected], told: Told) -> bytes:
        made = [_made(answer, self._form) for answer in answers]
        if self._telling.token_ids:
            made = [replace(m, ids=a.ids) for m, a in zip(made, answers, strict=True)]
        return p.encode(chat_completion(self._head, made, told.usage, told.extras, self.prompt))

    def started(self, cost: Callable[[], p.Usage]) -> None:
        self._cost = cost

    def begin(self, used: p.Usage) -> bytes:
        chunks = self._chunks
        self._count(0)
        ids = self.prompt.get("prompt_token_ids", UNSET)
        return b"".join(sse.data(chunks.role(n, ids)) for n in range(len(self._choices)))

    def reading(self, number: int, read: PromptProgress) -> bytes:
        return sse.data(self._chunks.progress(read))

    def more(self, increment: Increment) -> bytes:
        self._count(len(increment.ids))
        if self._telling.token_ids:
            self._chunks.ids = increment.ids
        written = self._choices[increment.choice].more(increment)
        if self._chunks.ids:  # their text waits
            written += sse.data(self._chunks.text("", index=increment.choice))
        return written

    def _count(self, tokens: int) -> None:
        """Count tokens of answers that are sent; let the next events say so if they are to."""
        self._generated += tokens
        if self._telling.usage_so_far:
            self._chunks.so_far = self._cost().after(self._generated)

    def end(self, told: Told) -> bytes:
        last = sse.data(self._chunks.usage(told.usage, told.extras)) if self._last else b""
        return last + sse.DONE


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
    """One of the answers of a streamed chat."""

    def __init__(self, chunks: ChatChunks, index: int, form: Form) -> None:
        self._chunks = chunks
        self._index = index
        self._parts = Parts(form)
        self._calls = 0

    def more(self, increment: Increment) -> bytes:
        written = b"".join(map(self._written, self._parts.take(increment)))
        if increment.finish is not None:
            reason = self._parts.finish(increment.finish)
            written += sse.data(self._chunks.finish(reason, self._index))
        return written

    def _written(self, part: AnswerPart) -> bytes:
        chunks, index = self._chunks, self._index
        if part.kind == "text":
            return sse.data(chunks.text(part.text, part.tokens, index))
        if part.kind == "call":
            self._calls += 1
            return sse.data(chunks.call_begin(self._calls - 1, p.new_id("call_"), part.text, index))
        if part.kind == "arguments":
            return sse.data(chunks.call_more(self._calls - 1, part.text, index))
        return b""


HANDLERS: dict[str, Handler] = {
    "POST /v1/chat/completions": chat,
}
