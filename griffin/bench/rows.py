"""Rows of an engine that go on from a worker's plain loop, timed by who waits for them."""

from __future__ import annotations

import queue
import time

from griffin.bench.ours import Ours
from griffin.engine import Context, End, Engine, Event, Request
from griffin.sampling import SamplingParams


class Rows:
    """An engine on its own thread, as a server has it, on the model of a worker.

    slots: rows that it may continue together; each begins with the plain loop's state and next
           token.
    """

    def __init__(self, program: Ours, slots: int) -> None:
        self._engine = Engine(program.griffin, slots, kept=0, chunk=program.chunk).start()
        state, last = program.standing()
        self._starts = [Context(state=state).then([last])] * slots

    def decode(self, count: int, rows: int) -> float:
        """Let rows take `count` tokens each, greedily and together; return the seconds that took.

        The clock runs from the moment when the last of them has its first token: from there each
        step of the engine gives one token to each. Every token goes to this thread through a queue.
        """
        events: queue.SimpleQueue[Event | End] = queue.SimpleQueue()
        # Those that began first are some steps ahead; none may come to its end while the clock
        # runs.
        params = SamplingParams(temperature=0, max_tokens=count + 2 * rows + 8)
        tickets = [
            self._engine.submit(
                Request(context=context, params=params), sink=events.put, keep_state=True
            )
            for context in self._starts[:rows]
        ]
        begun: set[int] = set()
        while len(begun) < rows:
            begun.add(_token(events).index)
        start = time.perf_counter()
        for _ in range(rows * count):
            _token(events)
        took = time.perf_counter() - start
        for ticket in tickets:
            self._engine.cancel(ticket)
        for number, ticket in enumerate(tickets):
            ticket.wait()
            assert ticket.context is not None
            self._starts[number] = ticket.context
        return took


def _token(events: queue.SimpleQueue[Event | End]) -> Event:
    """Wait for the next token; raise what ended a row in its place."""
    event = events.get()
    if isinstance(event, End):
        raise event.error or RuntimeError(f"row {event.index} ended early: {event.finish_reason}")
    return event
