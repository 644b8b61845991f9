"""From prompts to an answer on the wire: what chats, completions and responses share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

from griffin.engine import Context, Ticket
from griffin.grammar import CompiledGrammar
from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.bridge import Job, Run
from griffin.server.conversations.thread import Thread
from griffin.server.errors import ApiError
from griffin.server.generating import Clock, Collected, Increment, Shown, collect, stream
from griffin.server.http import sse
from griffin.server.http.exchange import Exchange, Reply
from griffin.server.protocol.telling import NOTHING, PromptProgress, Telling
from griffin.server.service import Service


class Told:
    """What a finished answer says about itself. usage: its cost. extras: what only we tell."""

    def __init__(self, service: Service, run: Run, clock: Clock, thread: Thread) -> None:
        self.usage = used(run)
        self.extras = _extras(service, run, clock, thread)

    def take(self, thread: Thread) -> int:
        """Add the state that goes with the answer, if one does; return its bytes."""
        if thread.state_data is None:
            return 0
        self.extras.state_data = thread.state_data
        return len(thread.state_data)


class Renderer(Protocol):
    """What an endpoint makes of answers.

    media: of a stream. alive: what is sent now and then while one has nothing to say.
    prompt: what is told of the prompt, by the names of its fields.
    """

    media: str = sse.HEADERS["content-type"]
    alive: bytes = sse.KEEPALIVE
    prompt: Mapping[str, Any] = MappingProxyType({})

    def whole(self, answers: Sequence[Collected], told: Told) -> bytes:
        """Return the body of answers that are not streamed."""
        ...

    def started(self, cost: Callable[[], p.Usage]) -> None:
        """Be given what tells a stream's cost so far."""

    def begin(self, used: p.Usage) -> bytes:
        """Return the first events of a stream. used: the prompt's cost, as far as it is known."""
        ...

    def more(self, increment: Increment) -> bytes:
        """Return the events of what was added to an answer."""
        ...

    def reading(self, number: int, read: PromptProgress) -> bytes:
        """Return the event that tells how much of a job's prompt is read."""
        return b""

    def end(self, told: Told) -> bytes:
        """Return the last events."""
        ...

    def fail(self, error: ApiError) -> bytes:
        """Return the events that end a stream which failed."""
        return sse.error(error)

    def record(self, answers: Sequence[Collected] | None, told: Told) -> dict[str, Any]:
        """Return what is kept beside the answer's turn. answers: None if they were streamed."""
        return {}


async def answer(
    service: Service,
    exchange: Exchange,
    jobs: Sequence[Job],
    thread: Thread,
    renderer: Renderer,
    *,
    streamed: bool,
    headers: Mapping[str, str],
) -> Reply | None:
    """Let the engine answer, keep what is to be kept, and give it the endpoint's form.

    headers: of the answer, beside the one that tells where it went on from. Returns None where the
    answer was streamed. Raises ApiError for what failed before a stream began.
    """
    tokens, wanted = _scores(jobs)
    if not streamed and tokens:
        service.check_scores(tokens, wanted, "max_tokens")
    run = await service.start(exchange, jobs, keep_state=thread.keeps)
    clock = Clock()
    shown = [Shown(service.llm.tokenizer, job, writer) for job in jobs for writer in job.writers]
    try:
        if not streamed:
            answers = await collect(service, exchange, run, clock, shown)
            told = Told(service, run, clock, thread)
            await thread.keep(run, renderer.record(answers, told))
            carried = told.take(thread)
            # Beside the loop, where there is much to write.
            size = tokens and sum(len(writer.events) for writer in run.writers) * (1 + wanted)
            body = await service.think(size + carried, lambda: renderer.whole(answers, told))
            return Reply(body, {**headers, **state_header(run)})

        async def end() -> bytes:
            told = Told(service, run, clock, thread)
            await thread.keep(run, renderer.record(None, told))
            return await service.think(told.take(thread), lambda: renderer.end(told))

        def reading() -> bytes:
            news, run.read = run.read, {}
            return b"".join(
                renderer.reading(number, _progress(run.tickets[number], read))
                for number, read in news.items()
            )

        renderer.started(partial(used, run))
        await stream(
            service,
            exchange,
            run,
            clock,
            shown,
            headers=lambda: {"content-type": renderer.media, **headers, **state_header(run)},
            begin=lambda: renderer.begin(used(run)),
            more=renderer.more,
            end=end,
            fail=renderer.fail,
            reading=reading,
            alive=renderer.alive,
        )
        return None
    finally:
        service.finish(exchange, run, source(run))
        await thread.rescue(run)


def _scores(jobs: Sequence[Job]) -> tuple[int, int]:
    """Return how many tokens with log-probabilities answers may have, and alternatives of each."""
    wanted = [(len(one.writers), one.request.params) for one in jobs]
    tokens = sum(n * params.max_tokens for n, params in wanted if params.logprobs is not None)
    return tokens, max((params.logprobs or 0 for _, params in wanted), default=0)


def job(
    service: Service,
    context: Context,
    sampling: dict[str, Any],
    *,
    n: int = 1,
    first: int = 0,
    chat: bool = False,
    keep_last: bool = False,
    shift: int = 0,
    grammar: CompiledGrammar | None = None,
    telling: Telling = NOTHING,
) -> Job:
    """Return the job of one prompt with n answers, the first of which has the number `first`.

    chat: an answer is a turn. keep_last, shift: as Job has them. grammar: what each answer must
    look like. telling: what is told beside it. Raises ApiError for what the model cannot do.
    """
    try:
        request = service.llm.request(context, chat=chat, grammar=grammar, **sampling)
    except ValueError as error:
        raise errors.of_value_error(error) from None
    return Job.of(
        request,
        service.llm.tokenizer,
        range(first, first + n),
        keep_last=keep_last,
        shift=shift,
        as_ids=telling.as_ids,
        progress=telling.progress,
    )


def _progress(ticket: Ticket, read: int) -> PromptProgress:
    before, spared = ticket.request.context.read, ticket.cached_tokens or 0
    waited = ticket.submitted + (ticket.queue_seconds or 0.0)
    return PromptProgress(
        total=before + ticket.prompt_tokens,
        cache=before + spared,
        processed=before + read,
        time_ms=round(1000 * (time.perf_counter() - waited)),
    )


def source(run: Run) -> p.Source:
    """Return where a run's answers went on from."""
    contexts = [ticket.request.context for ticket in run.tickets]
    if any(context.read and not context.origin for context in contexts):
        return "session"
    return "prefix" if any(ticket.cached_tokens for ticket in run.tickets) else "none"


def state_header(run: Run) -> dict[str, str]:
    """Return the header that says so; none while nobody knows yet."""
    if any(ticket.cached_tokens is None for ticket in run.tickets):
        return {}
    return p.state_header(source(run), _spared(run))


def used(run: Run) -> p.Usage:
    """Return a run's cost: tokens of its prompts, of these not read again, and of its answers."""
    prompt = sum(ticket.request.context.tokens for ticket in run.tickets)
    accepted = sum(ticket.accepted for ticket in run.tickets)
    drafts = accepted, sum(ticket.drafted for ticket in run.tickets) - accepted
    said = sum(len(writer.events) for writer in run.writers)
    return p.usage(prompt, said, _spared(run), drafts=drafts)


def _spared(run: Run) -> int:
    """Return how many tokens of a run's prompts were read before."""
    return sum(t.request.context.read + (t.cached_tokens or 0) for t in run.tickets)


def _extras(service: Service, run: Run, clock: Clock, thread: Thread) -> p.Extras:
    ticket = run.tickets[0]
    made = p.Extras(state=source(run), seeds=[seed for t in run.tickets for seed in t.seeds])
    made.state_bytes = service.engine.stats().slot_bytes // service.engine.stats().slots
    if ticket.cache_reason:
        made.why = ticket.cache_reason
    if thread.name is not None:
        made.session = thread.name
    if clock.rate is not None:
        made.tokens_per_second = clock.rate
    if ticket.queue_seconds is not None:
        made.queue_seconds = ticket.queue_seconds
    if ticket.prefill_seconds is not None:
        made.prompt_seconds = ticket.prefill_seconds
    return made
