"""The engine without its thread: rows enter slots, read, run, fork, leave. One caller at a time."""

from __future__ import annotations

import time
from array import array
from collections import deque
from typing import TYPE_CHECKING

from torch import Tensor

from griffin.engine.choosing import choose, sampler_of
from griffin.engine.context import Context
from griffin.engine.devices import finish, marks_within, raise_if_lost
from griffin.engine.graphs import Graphs
from griffin.engine.passage import Passage
from griffin.engine.request import End, EndReason, Event
from griffin.engine.row import Kept, Row
from griffin.engine.runners import Capturing, started
from griffin.engine.scheduler import Line, Room, next_reader
from griffin.engine.shares import Debts, Queue, exchanges
from griffin.engine.ticket import Ticket
from griffin.model import Griffin, State

if TYPE_CHECKING:
    from griffin.engine.prefix_cache import PrefixCache


class Core:
    """Rows, where their states lie, and what one does with them.

    Events gather in `out`, in the order in which they happened.
    admitted: tickets that do not wait any more, ended ones included.
    """

    def __init__(
        self,
        model: Griffin,
        slots: int,
        *,
        chunk: int,
        queue: Queue,
        room: Room,
        cache: PrefixCache | None,
        graphs: Graphs | bool = False,
        capturing: Capturing | None = None,
    ) -> None:
        self.batch, self.runner = started(model, slots, graphs, capturing)
        self.line = Line()
        self.queue = queue
        self.room = room
        self.debts = Debts()
        self.cache = cache
        self.live: dict[int, tuple[Ticket, list[Row]]] = {}
        self.out: deque[tuple[Ticket, Event | End]] = deque()
        self.admitted = self.tokens_read = self.tokens_reused = self.tokens_generated = 0
        self._model = model
        self._chunk = chunk
        self._pieces = self._turn = 0

    # What callers ask for.

    def add(self, ticket: Ticket) -> None:
        """Let a ticket wait for a slot."""
        row = Row(ticket)
        self.live[ticket.number] = ticket, [row]
        self.line.add(row)

    def cancel(
        self, ticket: Ticket, choice: int | None = None, reason: EndReason = "cancelled"
    ) -> None:
        """End a ticket, or one choice of it; what has ended already stays as it is."""
        for row in list(self._rows(ticket)):
            if row.sampler is None and choice is not None:
                self._end_unforked(row, choice, reason)
            elif choice is None or row.choice == choice:
                self._end(row, End(ticket.number, row.choice, reason))

    def pause(self, ticket: Ticket) -> None:
        """Set a ticket aside in the places reserved for it; give back those it does not need."""
        places, ticket.places = ticket.places, 0
        for row in list(self._rows(ticket)):
            if row.phase == "waiting":
                self.line.remove(row)
            elif self._take_out(row):
                places -= row.kept is not None
            else:
                continue
            row.phase = "paused"
        self.room.free(ticket.namespace, places)

    def resume(self, ticket: Ticket) -> None:
        """Let a paused ticket wait for slots again, in its old place in the line."""
        for row in self._rows(ticket):
            if row.phase == "paused":
                row.phase = "waiting"
                self.line.add(row)

    def _rows(self, ticket: Ticket) -> list[Row]:
        """Return the rows of a ticket that go on; none if it is over or another engine's."""
        owner, rows = self.live.get(ticket.number, (None, []))
        return rows if owner is ticket else []

    # What a turn consists of.

    def expire(self, now: float) -> None:
        """End what has reached its deadline, wherever it is."""
        for ticket, _ in list(self.live.values()):
            if ticket.deadline is not None and now >= ticket.deadline:
                self.cancel(ticket, reason="deadline")

    def admit(self) -> None:
        """Give free slots to those that wait, and make some free for who has less than others."""
        self._turn += 1
        while len(self.line) and (self.batch.free or self._make_room()):
            if (row := self.line.next(self.room.fits, self.batch.held)) is None:
                break
            try:
                self._place(row)
            except Exception as error:
                self._end(row, End(row.ticket.number, row.choice, "error", error))

    def decode(self) -> None:
        """Let the running rows step: every one that the runner has chosen for gets a token."""
        begun, rows = time.perf_counter(), list(self.batch.running)
        try:
            chosen = self.runner.step(self.batch)
        except Exception as error:
            raise_if_lost(error)
            # Which row it was, and how far the states were changed, nobody knows.
            for row in rows:
                self._end(row, End(row.ticket.number, row.choice, "error", error), lost=True)
            return
        self.debts.pay(time.perf_counter() - begun)
        for row, event in chosen:
            self.tokens_generated += isinstance(event, Event)
            if event.finish_reason is None:
                self.out.append((row.ticket, event))
            else:  # who has no next token has read the last one all the same
                self._end(row, event, lost=isinstance(event, End))

    def reader(self) -> Row | None:
        """Return whose prompt is to be read on; None where the rows of others step first."""
        if not self.batch.reading:
            return None
        row = next_reader(self.batch.reading, self._pieces, self.debts.of)
        owes = self.debts.of(row.ticket.namespace) > 0
        return None if owes and self.batch.others_run(row.ticket.namespace) else row

    def read_piece(self, row: Row) -> None:
        """Read a piece of a prompt, and let its choices begin if that was the last one."""
        begun, namespace = time.perf_counter(), row.ticket.namespace
        readers = {each.ticket.namespace for each in self.batch.reading}
        self._pieces += 1
        try:
            self._read(row)
        except Exception as error:
            raise_if_lost(error)
            self._end(row, End(row.ticket.number, row.choice, "error", error), lost=True)
        finish(self._model.device)
        self.debts.read(namespace, time.perf_counter() - begun)
        if not self.batch.others_run(namespace):
            self.debts.level(readers)

    def abandon(self, reason: EndReason, error: BaseException | None) -> None:
        """End everything at once, without states; for when something was torn in the middle."""
        self.batch.empty()
        self.line = Line()
        self.room.reset()
        for ticket, _ in list(self.live.values()):
            ticket.places = 0
            for choice, ended in enumerate(ticket.finish_reasons):
                if ended is None:
                    self._finish(ticket, End(ticket.number, choice, reason, error), None)

    def release(self) -> None:
        """Give the memory of the slots back."""
        self.batch, self.runner = started(self._model, 0, False)

    # Entering.

    def _make_room(self) -> bool:
        """Set a row aside for one that waits and has less than its share; return whether."""
        for row, aside in exchanges(self.line, self.batch.rows, self._turn):
            place = aside.read > 0
            theirs = aside.ticket.namespace
            if self.room.admits(row, place) and self.room.reserve(theirs, place):
                if self._take_out(aside):
                    aside.phase = "waiting"
                    self.line.add(aside)
                return True
        return False

    def _take_out(self, row: Row) -> bool:
        """Take a row out of its slot, its state into a place that was reserved for that.

        Returns False where there is no memory for it: then the row has ended.
        """
        if row.read:
            try:
                row.kept = Kept(self._taken(row))
            except Exception as error:
                self._end(row, End(row.ticket.number, row.choice, "error", error), lost=True)
                return False
        self.batch.leave(row)
        self.room.unreserve(row)
        return True

    def _place(self, row: Row) -> None:
        ticket = row.ticket
        if ticket.queue_seconds is None:
            ticket.queue_seconds = time.perf_counter() - ticket.submitted
            self._leave_queue(ticket)
        if row.kept is not None:
            state = row.kept.state
            self.room.drop(row, keep_place=row.reserved)
        elif ticket.request.context.state is None or ticket.request.context.origin:
            state = self._known(row) or ticket.request.context.state
        else:
            state = ticket.request.context.state
            ticket.cached_tokens, ticket.cache_reason = 0, "the request brings a state of its own"
        self.batch.enter(row, state)
        row.entered = self._turn
        if row.sampler is not None:
            self.batch.start(row)

    def _known(self, row: Row) -> State | None:
        """Return the state of the longest beginning of a prompt that the cache knows."""
        ticket = row.ticket
        ticket.cached_tokens = 0
        if self.cache is None or not ticket.use_cache:
            ticket.cache_reason = (
                "there is no cache" if self.cache is None else "the cache was not to be used"
            )
            return None
        ids = ticket.known(len(ticket.ids))
        hit = self.cache.find(ids, ticket.namespace, ticket.reader)
        row.read = ticket.cached_tokens = max(0, hit.tokens - (len(ids) - len(ticket.ids)))
        ticket.cache_reason = hit.reason
        self.tokens_reused += row.read
        return hit.state

    # Reading and choosing.

    def _read(self, row: Row) -> None:
        ticket, slot = row.ticket, self.batch.slot(row)
        ids = row.next_ids(self._chunk)
        cache = self._cache_for(ticket)
        marks = cache.marks(ticket.offset + row.read, ids, row.left) if cache is not None else []
        passage = None
        if len(marks) > 1 and marks_within(self._model.device):
            passage = Passage(self.batch.slots.view(slot), ticket.offset + row.read, marks)
        tokens = self._model.tokens([ids])
        hidden = self.runner.read(self.batch, row, tokens, passage and passage.marks)
        row.read += len(ids)
        self.tokens_read += len(ids)
        if ticket.request.progress is not None:
            ticket.request.progress(row.read)
        for mark in marks if passage is not None else marks[-1:]:
            assert cache is not None
            read = ticket.known(row.read - len(ids) + mark)
            state = self.batch.slots.view(slot) if passage is None else passage.at(mark)
            cache.put(read, state, ticket.namespace, ticket.reader)
        if row.left == 0:
            self._fork(row, self.runner.unembed(hidden, [row])[0])

    def _cache_for(self, ticket: Ticket, at_end: bool = False) -> PrefixCache | None:
        """Return the cache; None where it is unknown what a state has read, or no end is kept."""
        kept = self.cache if ticket.caches else None
        return None if at_end and kept is not None and not kept.ends else kept

    def _fork(self, reader: Row, logits: Tensor) -> None:
        """Choose every choice's first token; those that go on run from the reader's state."""
        ticket = reader.ticket
        begun = ticket.submitted + (ticket.queue_seconds or 0.0)
        ticket.prefill_seconds = time.perf_counter() - begun
        alive = [n for n, reason in enumerate(ticket.finish_reasons) if reason is None]
        config = self._model.config
        rows = [Row(ticket, choice, sampler_of(ticket, choice, config)) for choice in alive]
        going: list[Row] = []
        ended: list[tuple[Row, Event | End, Context | None]] = []
        for row in rows:
            event = choose(row, logits)
            self.tokens_generated += isinstance(event, Event)
            if event.finish_reason is None:
                going.append(row)
                self.out.append((ticket, event))
            else:
                context = self._context_of(reader, row) if ticket.keep_state else None
                ended.append((row, event, context))
        # Before anything is changed: there may be no memory for it.
        kept = Kept(self.batch.take(reader)) if len(going) - 1 > self.batch.free else None
        self.live[ticket.number][1][:] = going
        for row, event, context in ended:
            row.phase = "ended"
            self._finish(ticket, event, context)
        if not going:
            self.batch.leave(reader)
            self.room.unreserve(reader)
            reader.phase = "ended"
            return
        first, *others = going
        first.entered = reader.entered
        self.batch.replace(reader, first)
        self.batch.start(first)
        if kept is not None:  # the place is its own now
            reader.reserved, kept.users = False, 0
        for row in others:
            if kept is None or self.batch.free:
                self.batch.fork(first, row)
                row.entered = self._turn
                continue
            kept.users += 1
            row.kept = kept
            self.line.add(row)
        self.room.unreserve(reader)

    # Leaving.

    def _end(self, row: Row, event: Event | End, lost: bool = False) -> None:
        """Take a row out with the event that ends it, and its state if that is wanted."""
        ticket = row.ticket
        cache = None if lost else self._cache_for(ticket, at_end=True)
        if cache is not None and row.phase == "running" and len(row.chosen) > 1:
            ids = ticket.known(len(ticket.ids)) + array("i", row.chosen[:-1])
            try:
                self.runner.settle(self.batch, row)
                view = self.batch.slots.view(self.batch.slot(row))
                cache.put(ids, view, ticket.namespace, ticket.reader)
            except Exception as error:
                event = End(ticket.number, row.choice, "error", error)
        every = [n for n, reason in enumerate(ticket.finish_reasons) if reason is None]
        choices = every if row.sampler is None else [row.choice]  # who reads does so for all
        contexts: list[Context | None] = [None] * len(choices)
        try:
            if ticket.keep_state and not lost:
                contexts = [self._context_of(row) for _ in choices]
        except Exception as error:  # no memory for it
            event = End(ticket.number, row.choice, "error", error)
        if row.phase in ("reading", "running"):
            self.batch.leave(row)
        elif row.phase == "waiting" and row in self.line:
            self.line.remove(row)
        self.room.drop(row)
        self.room.unreserve(row)
        row.phase = "ended"
        self.live[ticket.number][1].remove(row)
        for choice, context in zip(choices, contexts, strict=True):
            own = event if choice == event.choice else End(ticket.number, choice, *_reason(event))
            self._finish(ticket, own, context)

    def _taken(self, row: Row) -> State:
        """Return a copy of a row's state."""
        if row.phase == "running":
            self.runner.settle(self.batch, row)
        return self.batch.take(row)

    def _end_unforked(self, row: Row, choice: int, reason: EndReason) -> None:
        """End one choice of a prompt that is still read; the row goes on for the others."""
        ticket = row.ticket
        others = [
            n for n, ended in enumerate(ticket.finish_reasons) if ended is None and n != choice
        ]
        if ticket.finish_reasons[choice] is not None:
            return
        if not others:
            self._end(row, End(ticket.number, choice, reason))
            return
        context = self._context_of(row) if ticket.keep_state else None
        self._finish(ticket, End(ticket.number, choice, reason), context)

    def _finish(self, ticket: Ticket, event: Event | End, context: Context | None) -> None:
        ticket.finish_reasons[event.choice] = event.finish_reason
        ticket.contexts[event.choice] = context
        self.out.append((ticket, event))
        if None not in ticket.finish_reasons:
            del self.live[ticket.number]
            if ticket.queue_seconds is None:
                self._leave_queue(ticket)

    def _leave_queue(self, ticket: Ticket) -> None:
        self.admitted += 1
        self.queue.leave(ticket.namespace)

    def _context_of(self, row: Row, choice: Row | None = None) -> Context:
        """Return where a row leads, with a copy of its state; the request's if nothing was read.

        choice: whose answer it is, if another than the row that has the state.
        """
        given, answer = row.ticket.request.context, choice or row
        if row.phase in ("reading", "running"):
            state = self._taken(row)
        else:
            state = given.state if row.kept is None else row.kept.state.clone()
        return given.after(state, answer.pending, answer.chosen)


def _reason(event: Event | End) -> tuple[EndReason, BaseException | None]:
    assert isinstance(event, End), "only an End concerns several choices"
    return event.finish_reason, event.error
