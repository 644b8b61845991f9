"""POST /v1/completions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from griffin.engine import Context
from griffin.server import protocol as p
from griffin.server.answering import Renderer, Told, answer, job
from griffin.server.constraints import Form, constrain
from griffin.server.conversations import Thread
from griffin.server.conversations.entry import saved, without_bos
from griffin.server.endpoints.completions.body import CompletionRequest, parse_completion
from griffin.server.endpoints.completions.reply import (
    CompletionAnswer,
    CompletionChunks,
    WrittenLogprobs,
    completion,
    write_logprobs,
)
from griffin.server.errors import UNSUPPORTED, ApiError
from griffin.server.generating import Collected, Increment, scored
from griffin.server.http import sse
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.measuring import Turns
from griffin.server.prompt_scores import prompt_logprobs
from griffin.server.protocol.telling import PromptProgress, last_of
from griffin.server.scoring import score_prompt
from griffin.server.service import Handler, Service
from griffin.text import StreamDetokenizer


@dataclass(frozen=True)
class _Prompt:
    """A prompt's ids, its text and, if they are shown, its tokens: in pieces, and as events.

    told: what its choices tell of it, by the names of their fields.
    """

    ids: Sequence[int]
    text: str = ""
    tokens: Sequence[WrittenLogprobs] = ()
    events: Sequence[bytes] = ()
    told: Mapping[str, Any] = field(default_factory=dict)


async def completions(service: Service, exchange: Exchange) -> Reply | None:
    """Continue texts, or measure them."""
    body = await service.body(exchange)
    asked = await service.think(len(body), lambda: parse_completion(body, service.limits))
    service.check_ready()
    service = service.serving(exchange, asked.model)
    identity = asked.identity(exchange.headers)
    if identity.named:
        raise ApiError(
            UNSUPPORTED,
            "sessions are chats; use /v1/chat/completions, or POST /v1/sessions/{name}/append",
            identity.source,
        )
    all_ids = await service.think(len(body), lambda: _ids(service, asked))
    head = service.head("cmpl-")
    before = await _before(service, exchange, asked)
    contexts = [
        before.then(ids if before.state is None else without_bos(service, ids)) for ids in all_ids
    ]
    for context in contexts:  # before a prompt is measured
        job(service, context, asked.sampling)
    grammar, passed = await constrain(service, Form(answer=asked.format))
    ignored = p.ignored_header((*asked.ignored, *passed))
    _check_scores(service, asked, all_ids)
    prompts = await _prompts(service, exchange, asked, head, all_ids)
    prompts = await _told(service, exchange, asked, prompts)
    if asked.max_tokens == 0:
        return await _measured(service, exchange, asked, head, prompts, ignored)
    jobs = [
        job(
            service,
            contexts[number],
            asked.sampling,
            n=asked.n,
            first=number * asked.n,
            keep_last=True,
            shift=len(prompt.text),
            grammar=grammar,
            telling=asked.telling,
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


class _Completions(Renderer):
    """Continued texts, whole or as events."""

    def __init__(self, head: p.Head, asked: CompletionRequest, prompts: Sequence[_Prompt]) -> None:
        self._head = head
        self._asked = asked
        self._prompts = prompts
        self._chunks = CompletionChunks(head, asked.include_usage)
        self._generated = 0

    def whole(self, answers: Sequence[Collected], told: Told) -> bytes:
        made: list[CompletionAnswer] = []
        for number, one in enumerate(answers):
            prompt = self._prompts[number // self._asked.n]
            made.append(
                CompletionAnswer(
                    text=prompt.text + one.text,
                    finish_reason=one.finish,
                    tokens=one.tokens,
                    echoed=prompt.tokens,
                    ids=one.ids if self._asked.telling.token_ids else None,
                    prompt=prompt.told,
                )
            )
        return p.encode(completion(self._head, made, told.usage, told.extras))

    def started(self, cost: Callable[[], p.Usage]) -> None:
        self._cost = cost

    def begin(self, used: p.Usage) -> bytes:
        self._count(0)
        if self._asked.telling.token_ids:
            ids = (list(prompt.ids) for prompt in self._prompts for _ in range(self._asked.n))
            self._chunks.prompt_ids = dict(enumerate(ids))
        return b"".join(event for prompt in self._prompts for event in prompt.events)

    def reading(self, number: int, read: PromptProgress) -> bytes:
        return sse.data(self._chunks.progress(read, number * self._asked.n))

    def _count(self, tokens: int) -> None:
        """Count tokens of answers that are sent; let the next events say so if they are to."""
        self._generated += tokens
        if self._asked.telling.usage_so_far:
            self._chunks.so_far = self._cost().after(self._generated)

    def more(self, increment: Increment) -> bytes:
        written = b""
        self._count(len(increment.ids))
        if self._asked.telling.token_ids:
            self._chunks.ids = increment.ids
        if increment.text or increment.tokens or (self._chunks.ids and increment.finish is None):
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


async def _told(
    service: Service, exchange: Exchange, asked: CompletionRequest, prompts: list[_Prompt]
) -> list[_Prompt]:
    """Return prompts with what their choices tell of them."""
    telling, made = asked.telling, list[_Prompt]()
    measured: Sequence[Any] = ()
    if telling.prompt_logprobs is not None:
        if asked.state is not None:
            message = "a prompt after a state cannot be measured; leave prompt_logprobs out"
            raise ApiError(UNSUPPORTED, message, "prompt_logprobs")
        ids = [prompt.ids for prompt in prompts]
        wanted = telling.prompt_logprobs
        measured = await prompt_logprobs(service, exchange, ids, wanted, asked.n)
    for number, prompt in enumerate(prompts):
        told: dict[str, Any] = {"prompt_logprobs": measured[number]} if measured else {}
        if telling.token_ids:
            told["prompt_token_ids"] = list(prompt.ids)
        made.append(replace(prompt, told=told))
    return made


async def _before(service: Service, exchange: Exchange, asked: CompletionRequest) -> Context:
    """Return what lies before the prompts: nothing, or a saved state."""
    if asked.echo and asked.truncate is not None:
        raise ApiError(
            UNSUPPORTED, "echo shows a whole prompt; leave truncate_prompt_tokens out", "echo"
        )
    if asked.state is None:
        return Context()
    if asked.echo:
        raise ApiError(
            UNSUPPORTED, "a prompt after a state cannot be measured; leave echo out", "echo"
        )
    return await saved(service, exchange, asked.state, service.penalizes(asked.sampling))


async def _measured(
    service: Service,
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
        answers = [
            CompletionAnswer(
                text=prompt.text,
                finish_reason="length",
                tokens=[] if "logprobs" in asked.sampling else None,
                echoed=prompt.tokens,
                ids=[] if asked.telling.token_ids else None,
                prompt=prompt.told,
            )
            for prompt in shown
        ]
        size = sum(len(part) for prompt in shown for piece in prompt.tokens for part in piece)
        body = await service.think(size, lambda: p.encode(completion(head, answers, cost)))
        return Reply(body, headers)
    chunks = CompletionChunks(head, asked.include_usage)
    if asked.telling.token_ids:
        chunks.prompt_ids = {index: list(prompt.ids) for index, prompt in enumerate(shown)}
    if asked.telling.usage_so_far:
        chunks.so_far = cost
    await exchange.begin_stream(headers)
    for prompt in prompts:
        for event in prompt.events:
            await exchange.write(event)
    written = b"".join(sse.data(chunks.finish("length", index)) for index in range(len(shown)))
    if asked.include_usage:
        written += sse.data(chunks.usage(cost))
    await exchange.write(written + sse.DONE)
    await exchange.end_stream()
    return None


def _check_scores(service: Service, asked: CompletionRequest, ids: Sequence[Sequence[int]]) -> None:
    """Raise ApiError for more log-probabilities of prompts than a request may have."""
    if asked.echo and (wanted := asked.sampling.get("logprobs")) is not None:
        tokens = sum(map(len, ids)) * asked.n
        if not asked.stream:
            tokens += len(ids) * asked.n * asked.max_tokens
        service.check_scores(tokens, wanted, "logprobs")


def _ids(service: Service, asked: CompletionRequest) -> list[Sequence[int]]:
    all_ids: list[Sequence[int]] = []
    for number, prompt in enumerate(asked.prompts):
        param = "prompt" if len(asked.prompts) == 1 else f"prompt[{number}]"
        ids = service.text_ids(prompt, param)
        service.check_prompt(ids, param)
        ids = last_of(ids, asked.truncate, text=isinstance(prompt, str))
        all_ids.append(ids)
    return all_ids


async def _prompts(
    service: Service,
    exchange: Exchange,
    asked: CompletionRequest,
    head: p.Head,
    all_ids: Sequence[Sequence[int]],
) -> list[_Prompt]:
    """Return the prompts as they are shown; measured, if they are echoed with log-probabilities.

    A text is echoed as it came, without the BOS that was put before it; ids all of them. All of a
    request is measured in one go, and written down there.
    """
    if not asked.echo:
        return [_Prompt(ids) for ids in all_ids]
    tokenizer, chunks = service.llm.tokenizer, CompletionChunks(head, asked.include_usage)
    wanted: int | None = asked.sampling.get("logprobs")
    if asked.telling.usage_so_far:
        chunks.so_far = p.usage(sum(map(len, all_ids)), 0)

    def pieces(number: int, stop: threading.Event) -> Iterator[tuple[str, WrittenLogprobs | None]]:
        given, ids = asked.prompts[number], all_ids[number]
        if wanted is None:
            yield given if isinstance(given, str) else tokenizer.decode(given), None
            return
        detokenizer, left = StreamDetokenizer(tokenizer), iter(ids)
        skipped = isinstance(given, str)  # the BOS
        for scores in score_prompt(service.llm, ids, wanted, stop):
            text, tokens = "", list[p.Scored]()
            for score, id in zip(scores, left, strict=False):
                offset = detokenizer.offset
                text += detokenizer.push(id)
                logprob, others = (None, ()) if score is None else score[:2]
                said = id, logprob, others, offset
                tokens.append(scored(tokenizer, *said, as_ids=asked.telling.as_ids))
            yield text, write_logprobs(tokens[skipped:])
            skipped = False
        yield detokenizer.finish(), None

    def written(stop: threading.Event) -> list[_Prompt]:
        made: list[_Prompt] = []
        for number, ids in enumerate(all_ids):
            texts, tokens, events = list[str](), list[WrittenLogprobs](), list[bytes]()
            turns = Turns(service.engine, stop)
            for text, logprobs in pieces(number, stop):
                texts.append(text)
                if logprobs is not None:
                    tokens.append(logprobs)
                if asked.stream and (text or (logprobs is not None and logprobs.tokens)):
                    indices = range(number * asked.n, (number + 1) * asked.n)
                    events += [sse.data(chunks.echo(text, logprobs, i)) for i in indices]
                turns.rest()
            kept = () if asked.stream else tokens
            made.append(_Prompt(ids, "".join(texts), kept, events))
        return made

    if wanted is None:
        size = sum(map(len, all_ids))
        return await service.think(size, lambda: written(threading.Event()))
    return await service.score(exchange, written)


HANDLERS: dict[str, Handler] = {
    "POST /v1/completions": completions,
}
