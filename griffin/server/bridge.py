"""Between the engine's thread and the event loop: requests go over, pieces come back in batches."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from griffin.answer import Piece, Writer
from griffin.engine import End, Engine, Event, Request, Ticket
from griffin.text import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Job:
    """One prompt and who writes its answers, one writer a choice.

    keep_last: the control token that ends an answer is one of its tokens, as evaluations count.
    shift:     characters before an answer, of an echoed prompt.
    as_ids:    tokens are called by their ids. progress: who asks wants to know how far it is read.
    """

    request: Request
    writers: Sequence[Writer]
    keep_last: bool = False
    shift: int = 0
    as_ids: bool = False
    progress: bool = False

    @classmethod
    def of(cls, request: Request, tokenizer: Tokenizer, choices: range, **fields: Any) -> Job:
        """Return the job of a request whose answers have these numbers."""
        writers = [Writer(tokenizer, request, choice) for choice in choices]
        return cls(request=request, writers=writers, **fields)


class _Read(NamedTuple):
    """How many ids of a job's prompt were read."""

    job: int
    tokens: int


class Bridge:
    """Carry pieces from the engine's thread to the loop, with one wake-up for each step.

    draining: no new work is to come over.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.runs: set[Run] = set()
        self.draining = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outbox: deque[tuple[Run, Piece | _Read | None]] = deque()
        self._scheduled = False

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say which loop the pieces go to."""
        self._loop = loop

    def post(self, run: Run, piece: Piece | _Read | None) -> None:
        """Hand over a piece, from any thread; None says only that something ended."""
        assert self._loop is not None
        self._outbox.append((run, piece))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False  # before the box is emptied: what comes now schedules anew
        woken: dict[Run, None] = {}
        while self._outbox:
            run, piece = self._outbox.popleft()
            if isinstance(piece, _Read):
                run.read[piece.job] = piece.tokens
            elif piece is not None:
                run.pieces.append(piece)
            woken[run] = None
        for run in woken:
            run.wake()


class Run:
    """Some prompts under way for one client. Everything but the sinks runs on the loop.

    tickets: one a job, in order.
    settled: the engine has ended every answer, and its states are there.
    why:     what `cancel` was told.
    read:    of jobs that tell it, by their numbers, how many ids of the prompt were read; who takes
             that clears it.
    """

    def __init__(self, bridge: Bridge, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.tickets: list[Ticket] = []
        self.pieces: list[Piece] = []
        self.read: dict[int, int] = {}
        self.why = ""
        self.started = time.perf_counter()
        self._bridge = bridge
        # A sink may be called before `submit` has returned its ticket.
        self._lock = threading.Lock()
        self._waiter: asyncio.Future[bool] | None = None
        self._unsettled = sum(len(job.writers) for job in jobs)

    def submit(self, *, namespace: str, deadline: float | None, keep_state: bool = False) -> None:
        """Give all jobs to the engine, or none: Refused says why."""
        self._bridge.runs.add(self)
        try:
            for number, job in enumerate(self.jobs):
                with self._lock:
                    ticket = self._bridge.engine.submit(
                        self._told(number, job),
                        n=len(job.writers),
                        deadline=deadline,
                        namespace=namespace,
                        sink=_Sink(self, number),
                        keep_state=keep_state,
                    )
                    self.tickets.append(ticket)
        except BaseException:
            self.close()
            raise

    def _told(self, number: int, job: Job) -> Request:
        """Return a job's request, which tells how far its prompt is read if that is wanted."""
        if not job.progress:
            return job.request
        own, bridge = weakref.ref(self), self._bridge  # the request is its run's: no circle

        def tell(tokens: int) -> None:
            if (run := own()) is not None:
                bridge.post(run, _Read(number, tokens))

        return replace(job.request, progress=tell)

    @property
    def settled(self) -> bool:
        return self._unsettled <= 0

    @property
    def writers(self) -> list[Writer]:
        return [writer for job in self.jobs for writer in job.writers]

    def cancel(self, why: str = "") -> None:
        """End what is under way, within a step."""
        self.why = self.why or why
        for ticket in self.tickets:
            if not ticket.done:
                self._bridge.engine.cancel(ticket)

    def give_up(self, why: str) -> None:
        """End every answer here and now: the engine hangs, and will not."""
        self.why = self.why or why
        for writer in self.writers:
            if not writer.ended:
                writer.ended = True
                end = End(0, writer.choice, "cancelled")
                self.pieces.append(Piece("", choice=writer.choice, end=end))
        self._unsettled = 0
        self.wake()

    def close(self) -> None:
        """End the run, whatever became of it."""
        self.cancel()
        self._bridge.runs.discard(self)

    async def next(self, seconds: float | None = None) -> list[Piece]:
        """Return what has come since the last call, after waiting for something at most so long."""
        if not self.pieces and not await self._woken(seconds):
            return []
        pieces, self.pieces = self.pieces, []
        return pieces

    async def settle(self) -> None:
        """Wait until the engine has let go of everything; at most a step after the last piece."""
        while not self.settled:
            await self._woken(None)

    async def _woken(self, seconds: float | None) -> bool:
        # A timer of its own: asyncio.timeout costs as much as all the rest of handing a token over.
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        late = None if seconds is None else loop.call_later(seconds, _resolve, waiter, False)
        try:
            return await waiter
        finally:
            self._waiter = None
            if late is not None:
                late.cancel()

    def wake(self) -> None:
        """Let who waits for pieces look."""
        if self._waiter is not None:
            _resolve(self._waiter, True)

    def take(self, number: int, event: Event | End) -> None:
        """Write an event of a job, on the engine's thread; a stop string ends its answer."""
        writer = self.jobs[number].writers[event.choice]
        try:
            piece = writer.take(event)
            if isinstance(event, Event) and event.alternatives and writer.events:
                # They are on their way; here they would be kept until the answer ends.
                writer.events[-1] = replace(writer.events[-1], alternatives=())
        except Exception as error:  # of this answer alone: it ends, and its client is told
            writer.ended = True
            end = End(event.index, event.choice, "error", error)
            piece = Piece("", choice=writer.choice, end=end)
        if writer.ended and event.finish_reason is None:
            with self._lock:
                ticket = self.tickets[number]
            self._bridge.engine.cancel(ticket, event.choice)
        if event.finish_reason is not None:
            self._unsettled -= 1
        if piece is not None or event.finish_reason is not None:
            self._bridge.post(self, piece)


def _resolve(waiter: asyncio.Future[bool], woken: bool) -> None:
    if not waiter.done():
        waiter.set_result(woken)


class _Sink:
    """Where the engine puts the events of one job."""

    def __init__(self, run: Run, number: int) -> None:
        self._run = run
        self._number = number

    def __call__(self, event: Event | End) -> None:
        self._run.take(self._number, event)
