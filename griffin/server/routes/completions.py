"""POST /v1/completions."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from griffin.server import protocol as p
from griffin.server.bridge import Run
from griffin.server.constraints import Form, constrain
from griffin.server.generating import Clock, collect, extras, stream, used
from griffin.server.http import sse
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.keeping import check_no_session, no_thread
from griffin.server.prompts import Start, job, text_ids
from griffin.server.scoring import score_prompt
from griffin.server.service import Service
from griffin.server.writer import Piece, scored
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
    asked = await service.think(len(body), lambda: p.parse_completion(body, service.limits))
    service.check_ready()
    model = service.check_model(asked.model)
    check_no_session(asked.identity(exchange.headers))
    all_ids = await service.think(len(body), lambda: _ids(service, asked))
    head = p.Head.new("cmpl-", model, service.system_fingerprint)
    ignored = p.ignored_header(asked.ignored)
    service.params(asked.sampling)  # before a prompt is measured
    grammar = await constrain(service, Form(answer=asked.format))
    prompts = [await _prompt(service, exchange, asked, n, ids) for n, ids in enumerate(all_ids)]
    if asked.max_tokens == 0:
        return await _measured(exchange, asked, head, prompts, ignored)
    jobs = [
        job(
            service,
            Start(ids=prompt.ids),
            asked.sampling,
            n=asked.n,
            first=number * asked.n,
            keep_last=True,
            shift=len(prompt.text) if asked.echo else 0,
            grammar=grammar,
        )
        for number, prompt in enumerate(prompts)
    ]
    run = service.start(exchange, jobs)
    clock = Clock()
    try:
        if asked.stream:
            await _stream(service, exchange, asked, head, prompts, run, clock, ignored)
            return None
        answers = []
        for number, answer in enumerate(await collect(service, exchange, run, clock)):
            prompt = prompts[number // asked.n]
            text, tokens = answer.text, answer.tokens
            if asked.echo:
                text = prompt.text + text
                tokens = None if tokens is None else (prompt.tokens or []) + tokens
            answers.append(
                p.CompletionAnswer(text=text, finish_reason=answer.finish, tokens=tokens)
            )
        told = extras(service, run, clock, no_thread(run).source(run))
        return Reply(
            p.encode(p.completion(head, answers, used(run), told)),
            ignored | no_thread(run).header(run),
        )
    finally:
        service.finish(exchange, run, no_thread(run).source(run))


async def _stream(
    service: Service,
    exchange: Exchange,
    asked: p.CompletionRequest,
    head: p.Head,
    prompts: Sequence[_Prompt],
    run: Run,
    clock: Clock,
    ignored: dict[str, str],
) -> None:
    chunks = p.CompletionChunks(head, asked.include_usage)

    def begin() -> bytes:
        if not asked.echo:
            return b""
        return b"".join(_echoed(chunks, prompts[i // asked.n], i) for i in range(len(run.writers)))

    def more(piece: Piece) -> bytes:
        written = b""
        if piece.text or piece.tokens:
            written = sse.data(chunks.text(piece.text, piece.tokens, piece.choice))
        if piece.finish is not None:
            written += sse.data(chunks.finish(piece.finish, piece.choice))
        return written

    async def end() -> bytes:
        if not asked.include_usage:
            return sse.DONE
        told = extras(service, run, clock, no_thread(run).source(run))
        return sse.data(chunks.usage(used(run), told)) + sse.DONE

    await stream(
        service,
        exchange,
        run,
        clock,
        headers=lambda: ignored | no_thread(run).header(run),
        begin=begin,
        more=more,
        end=end,
    )


async def _measured(
    exchange: Exchange,
    asked: p.CompletionRequest,
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
            p.CompletionAnswer(
                text=prompt.text if asked.echo else "",
                finish_reason="length",
                tokens=((prompt.tokens or []) if asked.echo else []) if wanted else None,
            )
            for prompt in shown
        ]
        return Reply(p.encode(p.completion(head, answers, cost)), headers)
    chunks = p.CompletionChunks(head, asked.include_usage)
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


def _echoed(chunks: p.CompletionChunks, prompt: _Prompt, index: int) -> bytes:
    return sse.data(chunks.text(prompt.text, prompt.tokens, index))


def _ids(service: Service, asked: p.CompletionRequest) -> list[Sequence[int]]:
    all_ids: list[Sequence[int]] = []
    for number, prompt in enumerate(asked.prompts):
        param = "prompt" if len(asked.prompts) == 1 else f"prompt[{number}]"
        ids = text_ids(service, prompt, param)
        service.check_prompt(ids, param)
        all_ids.append(ids)
    return all_ids


async def _prompt(
    service: Service,
    exchange: Exchange,
    asked: p.CompletionRequest,
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
