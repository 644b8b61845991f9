"""POST /v1/completions."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from griffin.engine import Context
from griffin.server import protocol as p
from griffin.server.answering import Told, answer, job
from griffin.server.constraints import Form, constrain
from griffin.server.conversations import Thread
from griffin.server.conversations.entry import saved, without_bos
from griffin.server.endpoints.completions.body import CompletionRequest, parse_completion
from griffin.server.endpoints.completions.reply import (
    CompletionAnswer,
    CompletionChunks,
    completion,
)
from griffin.server.endpoints.completions.scoring import score_prompt
from griffin.server.errors import UNSUPPORTED, ApiError
from griffin.server.generating import Collected, Increment, scored
from griffin.server.http import sse
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.service import Handler, Service
from griffin.text import StreamDetokenizer


@dataclass(frozen=True)
class _Prompt:
    """A prompt's ids, its text and, if they are shown, its tokens."""

    ids: Sequence[int]
    text: str
    tokens: list[p.Scored] | None


async def completions(service: Service, exchange: Exchange) -> Reply | None:
    """Continue texts, or measure them."""
    body = await service.body(exchange)
    asked = await service.think(len(body), lambda: parse_completion(body, service.limits))
    service.check_ready()
    model = service.check_model(asked.model)
    identity = asked.identity(exchange.headers)
    if identity.named:
        raise ApiError(
            UNSUPPORTED,
            "sessions are chats; use /v1/chat/completions, or POST /v1/sessions/{name}/append",
            identity.source,
        )
    all_ids = await service.think(len(body), lambda: _ids(service, asked))
    head = p.Head.new("cmpl-", model, service.system_fingerprint)
    ignored = p.ignored_header(asked.ignored)
    before = await _before(service, exchange, asked)
    contexts = [
        before.then(ids if before.state is None else without_bos(service, ids)) for ids in all_ids
    ]
    for context in contexts:  # before a prompt is measured
        job(service, context, asked.sampling)
    grammar = await constrain(service, Form(answer=asked.format))
    prompts = [await _prompt(service, exchange, asked, n, ids) for n, ids in enumerate(all_ids)]
    if asked.max_tokens == 0:
        return await _measured(exchange, asked, head, prompts, ignored)
    jobs = [
        job(
            service,
            contexts[number],
            asked.sampling,
            n=asked.n,
            first=number * asked.n,
            keep_last=True,
            shift=len(prompt.text) if asked.echo else 0,
            grammar=grammar,
        )
        for number, prompt in enumerate(prompts)
    ]
    return await answer(
        service,
        exchange,
        jobs,
        Thread(before),
        _Completions(head, asked, prompts),
        streamed=asked.stream,
        headers=ignored,
    )


class _Completions:
    """Continued texts, whole or as events."""

    def __init__(self, head: p.Head, asked: CompletionRequest, prompts: Sequence[_Prompt]) -> None:
        self._head = head
        self._asked = asked
        self._prompts = prompts
        self._chunks = CompletionChunks(head, asked.include_usage)

    def whole(self, answers: Sequence[Collected], told: Told) -> bytes:
        made: list[CompletionAnswer] = []
        for number, one in enumerate(answers):
            prompt = self._prompts[number // self._asked.n]
            text, tokens = one.text, one.tokens
            if self._asked.echo:
                text = prompt.text + text
                tokens = None if tokens is None else (prompt.tokens or []) + tokens
            made.append(CompletionAnswer(text=text, finish_reason=one.finish, tokens=tokens))
        return p.encode(completion(self._head, made, told.usage, told.extras))

    def begin(self) -> bytes:
        if not self._asked.echo:
            return b""
        n = self._asked.n
        shown = [prompt for prompt in self._prompts for _ in range(n)]
        return b"".join(_echoed(self._chunks, prompt, i) for i, prompt in enumerate(shown))

    def more(self, increment: Increment) -> bytes:
        written = b""
        if increment.text or increment.tokens:
            written = sse.data(
                self._chunks.text(increment.text, increment.tokens, increment.choice)
            )
        if increment.finish is not None:
            written += sse.data(self._chunks.finish(increment.finish, increment.choice))
        return written

    def end(self, told: Told) -> bytes:
        if not self._asked.include_usage:
            return sse.DONE
        return sse.data(self._chunks.usage(told.usage, told.extras)) + sse.DONE

    def fail(self, error: ApiError) -> bytes:
        return sse.error(error)

    def record(self, answers: Sequence[Collected] | None, told: Told) -> dict[str, Any]:
        return {}


async def _before(service: Service, exchange: Exchange, asked: CompletionRequest) -> Context:
    """Return what lies before the prompts: nothing, or a saved state."""
    if asked.state is None:
        return Context()
    if asked.echo:
        raise ApiError(
            UNSUPPORTED, "a prompt after a state cannot be measured; leave echo out", "echo"
        )
    return await saved(service, exchange, asked.state, service.penalizes(asked.sampling))


async def _measured(
    exchange: Exchange,
    asked: CompletionRequest,
    head: p.Head,
    prompts: Sequence[_Prompt],
    ignored: dict[str, str],
) -> Reply | None:
    """Answer with the prompts alone: no token was asked for."""
    cost = p.usage(sum(len(prompt.ids) for prompt in prompts), 0)
    exchange.tokens = (cost.prompt_tokens, 0, 0)
    shown = [prompt for prompt in prompts for _ in range(asked.n)]
    headers = ignored | p.state_header("none", 0)
    if not asked.stream:
        wanted = "logprobs" in asked.sampling
        answers = [
            CompletionAnswer(
                text=prompt.text if asked.echo else "",
                finish_reason="length",
                tokens=((prompt.tokens or []) if asked.echo else []) if wanted else None,
            )
            for prompt in shown
        ]
        return Reply(p.encode(completion(head, answers, cost)), headers)
    chunks = CompletionChunks(head, asked.include_usage)
    written = b""
    for index, prompt in enumerate(shown):
        written += _echoed(chunks, prompt, index) if asked.echo else b""
        written += sse.data(chunks.finish("length", index))
    if asked.include_usage:
        written += sse.data(chunks.usage(cost))
    await exchange.begin_stream(headers)
    await exchange.write(written + sse.DONE)
    await exchange.end_stream()
    return None


def _echoed(chunks: CompletionChunks, prompt: _Prompt, index: int) -> bytes:
    return sse.data(chunks.text(prompt.text, prompt.tokens, index))


def _ids(service: Service, asked: CompletionRequest) -> list[Sequence[int]]:
    all_ids: list[Sequence[int]] = []
    for number, prompt in enumerate(asked.prompts):
        param = "prompt" if len(asked.prompts) == 1 else f"prompt[{number}]"
        ids = service.text_ids(prompt, param)
        service.check_prompt(ids, param)
        all_ids.append(ids)
    return all_ids


async def _prompt(
    service: Service,
    exchange: Exchange,
    asked: CompletionRequest,
    number: int,
    ids: Sequence[int],
) -> _Prompt:
    """Return a prompt as it is shown; measured, if it is echoed with log-probabilities.

    A text is echoed as it came, without the BOS that was put before it; ids all of them.
    """
    if not asked.echo:
        return _Prompt(ids, "", None)
    given = asked.prompts[number]
    first = 1 if isinstance(given, str) else 0
    if "logprobs" not in asked.sampling:
        text = given if isinstance(given, str) else service.llm.tokenizer.decode(given)
        return _Prompt(ids, text, None)
    wanted: int = asked.sampling["logprobs"]

    def measure(stop: threading.Event) -> _Prompt:
        scores = score_prompt(service.llm, ids, wanted, stop)
        tokenizer = service.llm.tokenizer
        detokenizer = StreamDetokenizer(tokenizer)
        texts: list[str] = []
        tokens: list[p.Scored] = []
        for place, (id, score) in enumerate(zip(ids, scores, strict=True)):
            offset = detokenizer.offset
            texts.append(detokenizer.push(id))
            if place >= first:
                logprob = None if score is None else score.logprob
                others = () if score is None else score.alternatives
                tokens.append(scored(tokenizer, id, logprob, others, offset))
        texts.append(detokenizer.finish())
        return _Prompt(ids, "".join(texts), tokens)

    return await service.score(exchange, measure)


HANDLERS: dict[str, Handler] = {
    "POST /v1/completions": completions,
}
