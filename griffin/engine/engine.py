"""Many requests at once on one model, ids in, ids out: on its own thread or a step at a time."""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from griffin.engine.core import Core
from griffin.engine.devices import default_chunk
from griffin.engine.graphs import Graphs
from griffin.engine.request import End, Event, Refused, Request, check_length, check_request
from griffin.engine.runners import Capturing
from griffin.engine.scheduler import Pace, Room, check_borders, check_bytes, check_knobs
from griffin.engine.shares import Queue
from griffin.engine.slots import Slots
from griffin.engine.stats import Stats
from griffin.engine.ticket import Sink, Ticket
from griffin.engine.watchdog import Pulse
from griffin.model import Griffin

if TYPE_CHECKING:
    from griffin.engine.prefix_cache import PrefixCache


class Engine:
    """Continuous batching over slots whose bytes are known beforehand; docs/engine.md tells all.

    model:             the Griffin; nobody trains it meanwhile.
    slots:             sequences under way at a time, each a row of one State that is made here.
    chunk:             prompt tokens a call, from the document's start on; None: 64, on a GPU 4,096.
    max_waiting:       requests that may wait for a slot; one more is refused.
    max_prompt_tokens: longer prompts are refused; any length if None.
    stall_seconds:     what a running row may wait for its next token while prompts are read.
    prefix_cache:      spares prompts whose beginning was read before. One of `chunk` and its
                       `every` has to be a multiple of the other.
    kept:              states outside the slots: paused requests, waiting choices; None: slots / 4.
    max_bytes:         of slots and kept states together; more is a ValueError before there is any.
    graphs:            what steps are captured as: on a GPU CUDA graphs, unless `why_no_graphs` has
                       a reason; False for none; others by hand, wherever the model lies.
    capturing:         called with how many of all graphs there are.

    Every request gets the tokens and log-probabilities that it gets alone, whatever else goes on.
    `submit`, `cancel`, `pause`, `resume` and `stats` may be called from any thread.
    """

    def __init__(
        self,
        model: Griffin,
        slots: int = 8,
        *,
        chunk: int | None = None,
        max_waiting: int = 64,
        max_prompt_tokens: int | None = None,
        stall_seconds: float = 0.25,
        prefix_cache: PrefixCache | None = None,
        kept: int | None = None,
        max_bytes: int | None = None,
        graphs: Graphs | bool = True,
        capturing: Capturing | None = None,
    ) -> None:
        kept = -(-slots // 4) if kept is None else kept
        chunk = default_chunk(model.device) if chunk is None else chunk
        check_knobs(slots=slots, chunk=chunk, kept=kept)
        check_knobs(max_waiting=max_waiting, stall_seconds=stall_seconds)
        if max_prompt_tokens is not None:
            check_knobs(max_prompt_tokens=max_prompt_tokens)
        if prefix_cache is not None:
            check_borders(chunk, prefix_cache.every)
        self._row_bytes = Slots.bytes(model.config, model.dtype)
        check_bytes(slots, kept, self._row_bytes, max_bytes)
        self.model = model
        self.chunk = chunk
        self.max_waiting = max_waiting
        self.max_prompt_tokens = max_prompt_tokens
        self._slots = slots
        self._room = Room(kept)
        self._pace = Pace(stall_seconds)
        self._queue = Queue(max_waiting)
        how: dict[str, Any] = {"cache": prefix_cache, "graphs": graphs, "capturing": capturing}
        self._core = Core(model, slots, chunk=chunk, queue=self._queue, room=self._room, **how)
        self._cache = prefix_cache
        self._lock = threading.Lock()  # guards what follows, and never for longer than a few lines
        self._news = threading.Condition(self._lock)
        self._inbox: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._submitted = 0
        self._closed = ""
        self._drain = False
        self._turn = threading.Lock()  # held through a step
        self.pulse = Pulse()  # for a Watchdog
        self._thread: threading.Thread | None = None

    def submit(
        self,
        request: Request,
        *,
        n: int = 1,
        priority: int = 0,
        deadline: float | None = None,
        namespace: str = "",
        sink: Sink | None = None,
        use_cache: bool = True,
        keep_state: bool = False,
    ) -> Ticket:
        """Take a request, or raise Refused at once with the reason and its code.

        n:          answers from one reading of the prompt; choice i has the seed `params.seed` + i.
        priority:   higher ones get slots first; among equals the one that came first.
        deadline:   seconds from now; what has not ended by then ends with "deadline".
        namespace:  requests of one never meet prompts of another in the prefix cache.
        sink:       called with every event, on the engine's thread, before the next step begins; it
                    may call `cancel` or `pause`, and then nothing more is read or chosen. It must
                    not block. If it raises, the request is cancelled and the ticket's `sink_error`
                    tells why.
        use_cache:  begin from the prefix cache and add to it.
        keep_state: put the state of every choice that has ended into the ticket.
        """
        check_length(request, self.max_prompt_tokens)
        check_request(request, self.model)
        if not 1 <= n <= self._slots:
            raise Refused(
                f"n is {n}; this engine answers 1 to {self._slots} times, once a slot",
                "too_many_choices",
            )
        if n > 1 and not self._room.places:
            raise Refused(f"n is {n}; an engine with kept=0 cannot fork", "too_many_choices")
        if deadline is not None and not deadline > 0:
            raise Refused(f"deadline is {deadline}; it counts seconds from now, more than 0")
        # Before the lock: a long prompt takes a while to copy, and the engine's thread would wait.
        ticket = Ticket(
            -1,
            request,
            n=n,
            priority=priority,
            submitted=time.perf_counter(),
            deadline=deadline,
            namespace=namespace,
            sink=sink,
            use_cache=use_cache,
            keep_state=keep_state,
            adapters=self.model.adapters,
        )
        with self._news:
            if self._closed:
                raise Refused(f"the engine takes no requests any more: {self._closed}", "closed")
            if not self._queue.enter(namespace, self._core.batch.free):
                raise Refused(
                    f"{len(self._queue)} requests are waiting for {self._slots} slots; no more may"
                    " (raise it with max_waiting, or come back later)",
                    "queue_full",
                )
            ticket.number = self._submitted
            self._submitted += 1
            self._inbox.append((self._core.add, (ticket,)))
            self._news.notify()
        return ticket

    def cancel(self, ticket: Ticket, choice: int | None = None) -> None:
        """End a request, or one choice of it, after the step at hand; nothing if it has ended."""
        if choice is not None and not 0 <= choice < ticket.n:
            raise ValueError(f"choice is {choice}; the request has choices 0 to {ticket.n - 1}")
        self._command(self._core.cancel, ticket, choice)

    def pause(self, ticket: Ticket) -> None:
        """Set a request aside: its slots become free, its states are kept.

        Nothing happens if it is over or paused. Raises Refused ("no_room") where there is no room
        for its states; then it goes on.
        """
        with self._lock:
            if ticket.paused or ticket.done:
                return
            places = ticket.finish_reasons.count(None)
            if not self._room.reserve(ticket.namespace, places):
                raise Refused(
                    f"a pause needs room for {places} states; {self._room.used} of"
                    f" {self._room.places} kept states are in use (raise it with kept)",
                    "no_room",
                )
            ticket.paused = True
            ticket.places += places
        self._command(self._core.pause, ticket)

    def resume(self, ticket: Ticket) -> None:
        """Let a paused request go on as soon as slots are free."""
        with self._lock:
            if not ticket.paused:
                return
            ticket.paused = False
        self._command(self._core.resume, ticket)

    def stats(self) -> Stats:
        """Return what is going on, in numbers."""
        core, batch = self._core, self._core.batch
        running, reading = len(batch.running), len(batch.reading)
        return Stats(
            slots=self._slots,
            busy=running + reading,
            running=running,
            reading=reading,
            waiting=len(self._queue),
            paused=sum(ticket.paused for ticket, _ in list(core.live.values())),
            kept=self._room.used,
            kept_places=self._room.places,
            tokens_read=core.tokens_read,
            tokens_reused=core.tokens_reused,
            tokens_generated=core.tokens_generated,
            steps=core.runner.steps,
            slot_bytes=batch.slots.nbytes,
            kept_bytes=self._room.used * self._row_bytes,
            device=str(self.model.device),
            cache_bytes=0 if self._cache is None else self._cache.nbytes,
        )

    # The loop.

    @property
    def closed(self) -> str:
        """Why it takes no more requests; "" while it does."""
        return self._closed or ""

    def step(self) -> list[Event | End]:
        """Do one turn: obey, admit, one step of all running rows, then read of prompts what may be.

        Returns the events of the turn, which have been handed over too; a choice has at most one in
        a turn. For those who embed the engine in a loop of their own; RuntimeError while its own
        thread runs. KeyboardInterrupt, or any error that is not of one request alone, ends
        everything that is under way.
        """
        if self._thread is not None and threading.current_thread() is not self._thread:
            raise RuntimeError(
                "the engine runs on a thread of its own; use submit and the ticket's events"
            )
        if not self._turn.acquire(blocking=False):
            raise RuntimeError("a step is going on; a sink must not call step")
        handed: list[Event | End] = []
        core = self._core
        try:
            with torch.no_grad():
                self.pulse.beat()
                self._obey()
                core.expire(time.perf_counter())
                core.admit()
                handed += self._hand_over()
                since = time.perf_counter()
                if core.batch.running:
                    core.decode()
                    begun, since = since, time.perf_counter()
                    self._pace.stepped(since - begun)
                    self.pulse.beat(since - begun)
                    handed += self._hand_over()
                while (row := core.reader()) is not None:
                    begun = time.perf_counter()
                    core.read_piece(row)
                    now = time.perf_counter()
                    self._pace.read(now - begun)
                    self.pulse.beat(now - begun)
                    handed += self._hand_over()
                    if self._inbox or not self._pace.fits(now - since):
                        break
        except BaseException as error:
            self._abandon(error)
            raise
        finally:
            self.pulse.at_work = False
            self._turn.release()
        return handed

    def refuse(self, why: str) -> None:
        """Take no more requests, and leave all else as it is: for an engine that hangs."""
        with self._lock:
            self._closed = self._closed or why

    def start(self) -> Engine:
        """Run on a thread of its own until `close`."""
        with self._lock:
            if self._thread is not None or self._closed:
                raise RuntimeError(
                    "the engine runs already" if not self._closed else "the engine is closed"
                )
            # The choice of implementations is a context variable.
            context = contextvars.copy_context()
            self._thread = threading.Thread(
                target=context.run, args=(self._run,), name="griffin-engine", daemon=True
            )
        self._thread.start()
        return self

    def close(self, *, drain: bool = False) -> None:
        """Take no more requests, end those under way, and give the slots' memory back.

        drain: let them come to their own end first; paused ones are cancelled all the same.
        """
        with self._news:
            self._closed = self._closed or "it was closed"
            self._drain = drain
            self._news.notify()
        if self._thread is threading.current_thread():
            return
        if self._thread is not None:
            self._thread.join()
        elif not self._turn.locked():  # a sink that closes leaves the rest to a second call
            while self._drains():
                self.step()
            self._finish()

    def __enter__(self) -> Engine:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        moved = True
        try:
            while not self._closed or self._drains():
                with self._news:
                    if not (self._inbox or self._closed or moved):
                        self._news.wait(self._until_deadline())
                before = self._progress()
                handed = self.step()
                moved = bool(handed) or self._progress() != before
        finally:
            self._finish()

    def _progress(self) -> tuple[int, int, int]:
        return self._core.tokens_read, self._core.runner.steps, self._core.admitted

    def _drains(self) -> bool:
        """Return whether a closed engine has work to bring to its end; cancel what is paused."""
        if not self._drain:
            return False
        self._obey()
        live = [ticket for ticket, _ in self._core.live.values()]
        for ticket in live:
            if ticket.paused:
                self._core.cancel(ticket)
        return not all(ticket.paused for ticket in live)

    def _until_deadline(self) -> float | None:
        """Return the seconds until the next deadline, None if there is none."""
        deadlines = [t.deadline for t, _ in self._core.live.values() if t.deadline is not None]
        return max(0.0, min(deadlines) - time.perf_counter()) if deadlines else None

    def _command(self, do: Callable[..., None], *args: Any) -> None:
        """Have something done between two steps; at once if no thread runs them."""
        with self._news:
            self._inbox.append((do, args))
            self._news.notify()
        if self._thread is None and self._turn.acquire(blocking=False):
            try:
                self._obey()
                self._hand_over()
            finally:
                self._turn.release()

    def _obey(self) -> None:
        while self._inbox:
            do, args = self._inbox.popleft()
            do(*args)

    def _hand_over(self) -> list[Event | End]:
        """Give all events that have gathered to whom they belong, and return them."""
        handed: list[Event | End] = []
        while self._core.out:
            ticket, event = self._core.out.popleft()
            handed.append(event)
            try:
                ticket.hand_over(event)
            except Exception as error:
                ticket.sink_error = error
                with self._lock:
                    self._inbox.append((self._core.cancel, (ticket,)))
        return handed

    def _finish(self) -> None:
        """End what is left, with the states of those who want them."""
        with self._turn:
            self._obey()
            for ticket, _ in list(self._core.live.values()):
                self._core.cancel(ticket)
            self._hand_over()
            self._core.release()

    def _abandon(self, error: BaseException) -> None:
        """End everything after a step was torn: the engine can go on, its thread cannot."""
        ours = isinstance(error, Exception)
        with self._lock:
            if self._thread is not None:
                self._closed, self._drain = f"its thread broke: {error!r}", False
            self._core.abandon("error" if ours else "cancelled", error if ours else None)
        self._hand_over()
