"""From a run to its answer, whole or as events: what chats, completions and responses share."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from griffin.answer import Piece, Writer
from griffin.engine import FinishReason
from griffin.engine.devices import out_of_memory
from griffin.sampling import ConstraintError
from griffin.server import errors
from griffin.server.bridge import Job, Run
from griffin.server.errors import ApiError
from griffin.server.http.asgi import Gone
from griffin.server.http.exchange import Exchange
from griffin.server.logs import where
from griffin.server.protocol import Candidate, Scored
from griffin.server.service import Service, log
from griffin.text import Tokenizer


@dataclass
class Collected:
    """One answer so far. tokens: None if they were not asked for. stop: as Increment has it."""

    texts: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    tokens: list[Scored] | None = None
    finish: FinishReason = "stop"
    stop: str | None = None

    @property
    def text(self) -> str:
        return "".join(self.texts)


class Waiting:
    """Scored tokens of one answer, until the text they stand in is sent."""

    def __init__(self, sent: int = 0) -> None:
        """sent: characters that go before them."""
        self.left: list[Scored] = []
        self._sent = sent

    def add(self, tokens: Sequence[Scored] | None) -> None:
        self.left += tokens or ()

    def sent(self, text: str) -> list[Scored]:
        """Return those that go with more text; the others wait on."""
        self._sent += len(text)
        count = sum(token.offset < self._sent for token in self.left)
        tokens, self.left = self.left[:count], self.left[count:]
        return tokens


@dataclass(slots=True)
class Increment:
    """What was added to an answer and can be sent.

    choice: which answer. tokens: those that go with the text; None if they were not asked for.
    finish: how the answer ended, None while it goes on. last: nothing follows.
    stop: the stop string that ended it, if one did. ids: all tokens that came, whatever is shown.
    """

    choice: int
    text: str
    tokens: list[Scored] | None
    finish: FinishReason | None
    last: bool
    stop: str | None = None
    ids: list[int] = field(default_factory=list)


class Shown:
    """One answer as its client sees it: each token goes with its first character.

    The tokens of a stop string do not go at all.
    """

    def __init__(self, tokenizer: Tokenizer, job: Job, writer: Writer) -> None:
        self._tokenizer = tokenizer
        self._job = job
        self._writer = writer
        self._waiting = None if job.request.params.logprobs is None else Waiting(job.shift)

    def take(self, piece: Piece) -> Increment:
        """Add a piece of the answer."""
        waiting, tokens = self._waiting, None
        if waiting is not None:
            control = piece.finish == "stop" and piece.id in self._tokenizer.control_ids
            if piece.id is not None and (self._job.keep_last or not control):
                offset = self._job.shift + (piece.offset or 0)
                said = piece.id, piece.logprob, piece.alternatives, offset
                waiting.add([scored(self._tokenizer, *said, as_ids=self._job.as_ids)])
            tokens = waiting.sent(piece.text)
            if piece.last and self._writer.stop is None:  # those that have no character
                tokens += waiting.left
        stop = self._writer.stop if piece.last else None
        ids = [] if piece.id is None else [piece.id]
        return Increment(piece.choice, piece.text, tokens, piece.finish, piece.last, stop, ids)


def scored(
    tokenizer: Tokenizer,
    id: int,
    logprob: float | None,
    alternatives: Sequence[tuple[int, float]],
    offset: int,
    *,
    as_ids: bool = False,
) -> Scored:
    """Return a token as answers show it. as_ids: called by its id, not by its text."""

    def name(id: int) -> str:
        return f"token_id:{id}" if as_ids else tokenizer.token_text(id)

    others = [Candidate(name(i), tokenizer.token_bytes(i), value) for i, value in alternatives]
    return Scored(name(id), tokenizer.token_bytes(id), logprob, others, offset)


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
        self.count += sum(piece.id is not None for piece in pieces)

    @property
    def rate(self) -> float | None:
        """Tokens a second after the first, of all answers together; None for fewer than two."""
        if self.first is None or self.count < 2 or self.last <= self.first:
            return None
        return (self.count - 1) / (self.last - self.first)


async def collect(
    service: Service, exchange: Exchange, run: Run, clock: Clock, shown: Sequence[Shown]
) -> list[Collected]:
    """Wait for all answers; ApiError if one failed, Gone if nobody wants them any more."""
    answers = [Collected() for _ in run.writers]
    open_ = len(answers)
    while open_:
        pieces = await run.next()
        clock.tick(pieces)
        for piece in pieces:
            check(exchange, run, piece)
        for increment in _increments(pieces, shown):
            answer = answers[increment.choice]
            answer.texts.append(increment.text)
            answer.ids += increment.ids
            if increment.tokens is not None:
                answer.tokens = (answer.tokens or []) + increment.tokens
            if increment.finish is not None:
                answer.finish, answer.stop = increment.finish, increment.stop
                open_ -= 1
    _observe(service, run, clock)
    return answers


async def stream(
    service: Service,
    exchange: Exchange,
    run: Run,
    clock: Clock,
    shown: Sequence[Shown],
    *,
    headers: Callable[[], dict[str, str]],
    begin: Callable[[], bytes],
    more: Callable[[Increment], bytes],
    end: Callable[[], Awaitable[bytes]],
    fail: Callable[[ApiError], bytes],
    reading: Callable[[], bytes],
    alive: bytes,
) -> None:
    """Send the answers as events.

    What fails before the first token, or before `patience_seconds` are over, is raised and gets its
    own status; later it is an event that ends the stream.
    begin, more, end: return the first events, those of a piece, and the last ones. reading: those
    of what was read of prompts since it was last called.
    alive: what is sent now and then while there is nothing to say.
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
            written += reading()
            clock.tick(pieces)
            for increment in _increments(pieces, shown):
                written += more(increment)
                open_ -= increment.last
            for piece in pieces:
                check(exchange, run, piece)
            if written:
                await exchange.write(written)
            if not open_:
                break
            pieces = await run.next(settings.keepalive_seconds)
            written = b"" if pieces or run.read else alive
        written = await end()
    except ApiError as error:
        # For the log; headers are long gone.
        exchange.extra["x-griffin-failed"] = error.code or "bug"
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
    if out_of_memory(error):
        log.error("%s found no memory: %s", exchange.id, error)
        why = "there was no memory for this request; ask again later, or for less"
        raise ApiError(errors.NOT_READY, why, retry_after=2.0)
    broke = error or next((t.sink_error for t in run.tickets if t.sink_error is not None), None)
    log.error(
        "%s failed in the engine: %s", exchange.id, "cancelled" if broke is None else where(broke)
    )
    raise errors.bug(exchange.id)


def _increments(pieces: Sequence[Piece], shown: Sequence[Shown]) -> list[Increment]:
    """Return what pieces add to their answers; a slow reader gets fewer, longer events."""
    increments: list[Increment] = []
    for piece in pieces:
        increment = shown[piece.choice].take(piece)
        last = increments[-1] if increments else None
        if last is None or last.choice != increment.choice:
            increments.append(increment)
            continue
        last.text += increment.text
        last.ids += increment.ids
        if increment.tokens is not None:
            last.tokens = (last.tokens or []) + increment.tokens
        last.finish, last.last, last.stop = increment.finish, increment.last, increment.stop
    return increments


def _observe(service: Service, run: Run, clock: Clock) -> None:
    if clock.first is not None:
        service.metrics.first_token.observe(clock.first - run.started)
    if clock.rate is not None:
        service.metrics.between.observe(len(run.writers) / clock.rate)
