"""From a run to its answer, whole or as events: what chats, completions and responses share."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from griffin.engine import FinishReason
from griffin.sampling import ConstraintError
from griffin.server import errors
from griffin.server import protocol as p
from griffin.server.bridge import Run
from griffin.server.errors import ApiError
from griffin.server.http import sse
from griffin.server.http.asgi import Gone
from griffin.server.http.exchange import Exchange
from griffin.server.logs import where
from griffin.server.protocol import Scored
from griffin.server.service import Service, log
from griffin.server.writer import Piece


@dataclass
class Collected:
    """One answer so far. tokens: None if they were not asked for."""

    texts: list[str] = field(default_factory=list)
    tokens: list[Scored] | None = None
    finish: FinishReason = "stop"

    @property
    def text(self) -> str:
        return "".join(self.texts)


class Waiting:
    """Scored tokens of one answer, until the text they stand in is sent."""

    def __init__(self) -> None:
        self.left: list[Scored] = []
        self._sent = 0

    def add(self, tokens: Sequence[Scored] | None) -> None:
        self.left += tokens or ()

    def sent(self, text: str) -> list[Scored]:
        """Return those that go with more text; the others wait on."""
        self._sent += len(text)
        count = sum(token.offset < self._sent for token in self.left)
        tokens, self.left = self.left[:count], self.left[count:]
        return tokens


class Clock:
    """When tokens came, for the metrics and for who wants to know their speed."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.last = 0.0
        self.count = 0

    def tick(self, pieces: Sequence[Piece]) -> None:
        """Count pieces that came now."""
        self.last = time.perf_counter()
        if self.first is None and pieces:
            self.first = self.last
        self.count += sum(piece.count for piece in pieces)

    @property
    def rate(self) -> float | None:
        """Tokens a second after the first, of all answers together; None for fewer than two."""
        if self.first is None or self.count < 2 or self.last <= self.first:
            return None
        return (self.count - 1) / (self.last - self.first)


async def collect(service: Service, exchange: Exchange, run: Run, clock: Clock) -> list[Collected]:
    """Wait for all answers; ApiError if one failed, Gone if nobody wants them any more."""
    answers = [Collected() for _ in run.writers]
    open_ = len(answers)
    while open_:
        pieces = await run.next()
        clock.tick(pieces)
        for piece in pieces:
            check(exchange, run, piece)
            answer = answers[piece.choice]
            answer.texts.append(piece.text)
            if piece.tokens is not None:
                answer.tokens = (answer.tokens or []) + piece.tokens
            if piece.finish is not None:
                answer.finish = piece.finish
                open_ -= 1
    _observe(service, run, clock)
    return answers


async def stream(
    service: Service,
    exchange: Exchange,
    run: Run,
    clock: Clock,
    *,
    headers: Callable[[], dict[str, str]],
    begin: Callable[[], bytes],
    more: Callable[[Piece], bytes],
    end: Callable[[], Awaitable[bytes]],
    fail: Callable[[ApiError], bytes] = sse.error,
) -> None:
    """Send the answers as events.

    What fails before the first token, or the end of patience, is raised and gets its status; later
    it is an event, and the stream ends after it. begin: the first events. more: those of a piece.
    end: the last.
    """
    settings = service.settings
    open_ = len(run.writers)
    pieces = await run.next(settings.patience_seconds)
    for piece in pieces:
        check(exchange, run, piece)
    await exchange.begin_stream(headers())
    try:
        written = begin()
        while True:
            clock.tick(pieces)
            for piece in _merged(pieces):
                check(exchange, run, piece)
                written += more(piece)
                open_ -= piece.last
            if written:
                await exchange.write(written)
            if not open_:
                break
            pieces = await run.next(settings.keepalive_seconds)
            written = b"" if pieces else sse.KEEPALIVE
        written = await end()
    except ApiError as error:
        exchange.extra["x-griffin-failed"] = (
            error.code or "bug"
        )  # for the log; headers are long gone
        written = fail(error)
    if written:
        await exchange.write(written)
    await exchange.end_stream()
    _observe(service, run, clock)


def check(exchange: Exchange, run: Run, piece: Piece) -> None:
    """Raise what a piece says went wrong, if it does."""
    if piece.end is None:
        return
    if exchange.gone:
        raise Gone
    reason, error = piece.end.finish_reason, piece.end.error
    if reason == "deadline":
        if any(ticket.queue_seconds is None for ticket in run.tickets):
            raise ApiError(errors.TIMEOUT, "the request waited for its whole time", retry_after=2.0)
        raise ApiError(errors.TIMEOUT, "the request ran for its whole time", retry=False)
    if reason == "cancelled" and run.why:
        raise ApiError(errors.NOT_READY, run.why, retry_after=2.0)
    if isinstance(error, ConstraintError):
        raise ApiError(errors.IMPOSSIBLE, f"an answer could not be held to its form: {error}")
    broke = error or next((t.sink_error for t in run.tickets if t.sink_error is not None), None)
    log.error(
        "%s failed in the engine: %s", exchange.id, "cancelled" if broke is None else where(broke)
    )
    raise errors.bug(exchange.id)


def extras(
    service: Service, run: Run, clock: Clock, source: str, session: str | None = None
) -> p.Extras:
    """Return what only this server tells of an answer."""
    ticket = run.tickets[0]
    made = p.Extras(state=source, seeds=[seed for t in run.tickets for seed in t.seeds])  # pyright: ignore[reportArgumentType]
    made.state_bytes = service.engine.stats().slot_bytes // service.engine.stats().slots
    if ticket.cache_reason:
        made.why = ticket.cache_reason
    if session is not None:
        made.session = session
    if clock.rate is not None:
        made.tokens_per_second = clock.rate
    if ticket.queue_seconds is not None:
        made.queue_seconds = ticket.queue_seconds
    if ticket.prefill_seconds is not None:
        made.prompt_seconds = ticket.prefill_seconds
    return made


def used(run: Run, before: int = 0) -> p.Usage:
    """Return what a run cost. before: tokens of the state it went on from."""
    prompt = sum(ticket.prompt_tokens for ticket in run.tickets) + before
    cached = sum(ticket.cached_tokens or 0 for ticket in run.tickets) + before
    return p.usage(prompt, sum(len(writer.ids) for writer in run.writers), cached)


def _merged(pieces: Sequence[Piece]) -> list[Piece]:
    """Join neighbours of one answer: a client that reads slowly gets fewer, longer events."""
    merged: list[Piece] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if last is None or last.choice != piece.choice or last.last or piece.end is not None:
            merged.append(piece)
            continue
        last.text += piece.text
        if piece.tokens is not None:
            last.tokens = (last.tokens or []) + piece.tokens
        last.finish = piece.finish
        last.count += piece.count
    return merged


def _observe(service: Service, run: Run, clock: Clock) -> None:
    if clock.first is not None:
        service.metrics.first_token.observe(clock.first - run.started)
    if clock.rate is not None:
        service.metrics.between.observe(len(run.writers) / clock.rate)
