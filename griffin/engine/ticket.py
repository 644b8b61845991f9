"""What the caller holds of a request: its events, its numbers, at the end its state."""

from __future__ import annotations

import queue
import secrets
import threading
from array import array
from collections.abc import Callable, Iterator

from griffin.engine.context import Context
from griffin.engine.request import End, EndReason, Event, FinishReason, Refused, Request
from griffin.model.adapted import Adapters

Sink = Callable[[Event | End], object]


class Ticket:
    """A request under way. `Engine.submit` makes it; the engine's thread alone changes it.

    number:          counted from 0; `index` of its events.
    seeds:           of each choice, its own or a fresh one: given again, it gives the answer again.
    prompt_tokens:   ids of the prompt.
    cached_tokens:   how many of them the prefix cache spared; None until a slot was found.
    cache_reason:    why not more of them, in words.
    queue_seconds:   from submit to the slot; None until then.
    prefill_seconds: from the slot to the first token, others' turns included; None until then.
    drafted:         tokens that were read as drafts. accepted: of these, those that were chosen.
    finish_reasons:  of each choice, None while it goes on.
    contexts:        where each choice led, once it has ended, if the request was submitted with
                     keep_state. Its state has read everything but the last token chosen; if there
                     was none yet, everything but the rest of the prompt. None where a step broke,
                     or a choice did (`error`).
    paused:          it was set aside.
    adapter:         the place of the request's adapter among the model's, -1 for none.
    reader:          what the model reads with besides its weights, for the prefix cache: digests of
                     the adapter and of the tuned state that the prompt stands behind.
    sink_error:      what its sink raised; the request was cancelled then.
    """

    def __init__(
        self,
        number: int,
        request: Request,
        *,
        n: int = 1,
        priority: int = 0,
        submitted: float,
        deadline: float | None = None,
        namespace: str = "",
        sink: Sink | None = None,
        use_cache: bool = True,
        keep_state: bool = False,
        adapters: Adapters | None = None,
    ) -> None:
        self.number = number
        self.request = request
        adapters = adapters or Adapters()
        self.adapter = adapters.index(request.adapter)
        origin = request.context.origin
        self.reader = adapters.digest(self.adapter) + (origin and f" behind {origin}")
        self.n = n
        self.priority = priority
        self.submitted = submitted
        self.deadline = None if deadline is None else submitted + deadline
        self.namespace = namespace
        self.use_cache = use_cache
        self.keep_state = keep_state
        self.ids = array("i", request.context.pending)
        state = request.context.state
        self.offset = 0 if state is None else int(state.pos[0])
        first = request.params.seed
        self.seeds = tuple(
            secrets.randbits(63) if first is None else (first + i) % 2**63 for i in range(n)
        )
        self.cached_tokens: int | None = None
        self.cache_reason = ""
        self.queue_seconds: float | None = None
        self.prefill_seconds: float | None = None
        self.drafted = self.accepted = 0
        self.finish_reasons: list[FinishReason | EndReason | None] = [None] * n
        self.contexts: list[Context | None] = [None] * n
        self.sink_error: Exception | None = None
        self.paused = False
        self.places = 0  # reserved for the states of a pause that has been asked for
        self._sink = sink
        self._events: queue.SimpleQueue[Event | End] | None = (
            queue.SimpleQueue() if sink is None else None
        )
        self._ended = 0
        self._over = threading.Event()

    @property
    def prompt_tokens(self) -> int:
        return len(self.ids)

    @property
    def caches(self) -> bool:
        """Whether all that its states have read is known: ids, and perhaps a tuned state."""
        context = self.request.context
        return self.use_cache and (context.state is None or bool(context.origin))

    def known(self, count: int) -> array[int]:
        """Return how the prefix cache names a state that has read so many ids of the prompt.

        A tuned state is as many ids as it has positions, of a number that no token has.
        """
        ahead = array("i", [-1]) * (self.offset if self.request.context.origin else 0)
        return ahead + self.ids[:count]

    @property
    def context(self) -> Context | None:
        """Where the first choice led, the only one if n is 1."""
        return self.contexts[0]

    @property
    def done(self) -> bool:
        """Whether every choice has ended and its last event was handed over."""
        return self._over.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until every choice has ended, return whether in time. Needs a running engine."""
        return self._over.wait(seconds)

    def events(self, seconds: float | None = None) -> Iterator[Event | End]:
        """Iterate over the events of all choices as they come, until each has ended.

        Blocks while the engine, on its own thread or another's `step`, has nothing new;
        TimeoutError where that lasts longer than `seconds`. Refused with a sink, which gets the
        events instead.
        """
        if self._events is None:
            raise Refused("the events of this ticket go to its sink")
        ended = 0
        while ended < self.n:
            try:
                event = self._events.get(timeout=seconds)
            except queue.Empty:
                raise TimeoutError(
                    f"no event of request {self.number} in {seconds} seconds"
                ) from None
            ended += event.finish_reason is not None
            yield event

    def hand_over(self, event: Event | End) -> None:
        """Give an event to the sink or the queue. For the engine.

        Raises what the sink raises, after the ticket is marked as done if this was the last event.
        """
        self._ended += event.finish_reason is not None
        try:
            if self._events is not None:
                self._events.put(event)
            elif self._sink is not None:
                self._sink(event)
        finally:
            if self._ended == self.n:
                self._sink = None  # it often leads back here: a circle would outlive the request
                self._over.set()
