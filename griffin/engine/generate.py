"""Several requests to their end, in the caller's thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from griffin.engine.context import Context
from griffin.engine.devices import default_chunk
from griffin.engine.draft_length import prepare
from griffin.engine.engine import Engine
from griffin.engine.read import CHUNK
from griffin.engine.request import End, Event, Request, check_request
from griffin.model import Griffin

MAX_ROWS = 32


def generate(
    model: Griffin,
    requests: Sequence[Request],
    *,
    chunk: int | None = None,
    max_rows: int = MAX_ROWS,
    keep_states: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Generation:
    """Continue every request, and return an iterator of the tokens as they are chosen.

    Prompts are read alone, in chunks counted from their beginning, and each row has its own random
    numbers; so a request gets the same tokens and log-probabilities alone and in company. A row
    that ends leaves the batch at once. It is an Engine without a thread, as wide as it has to be.

    chunk:       tokens of a prompt a call of the model reads; 512, on a GPU 4,096, if None.
    max_rows:    the most rows that are continued together; others wait until one ends.
    keep_states: hold on to the state of each row that ends, for `Generation.context`.
    progress:    called as prompts are read, with the tokens read and those of all prompts.
    All requests are checked before this returns: ValueError for an empty prompt, ids, biases or
    stop ids outside the vocabulary, and a state of more than one row or another model.
    """
    return Generation(
        model, requests, chunk=chunk, max_rows=max_rows, keep_states=keep_states, progress=progress
    )


class Generation(Iterator[Event]):
    """Requests on their way; iterate for events. `generate` makes it.

    seeds: the seed each request uses, its own or a fresh one.
    An error of one request is raised when its turn comes; iteration can go on for the others. After
    a KeyboardInterrupt in the middle of a step nothing more comes, because that step's states are
    lost.
    """

    def __init__(
        self,
        model: Griffin,
        requests: Sequence[Request],
        *,
        chunk: int | None = None,
        max_rows: int = MAX_ROWS,
        keep_states: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        if max_rows < 1:
            raise ValueError(f"max_rows must be at least 1, not {max_rows}")
        for index, request in enumerate(requests):
            what = "the prompt" if len(requests) == 1 else f"prompt {index}"
            check_request(request, model, what)
        if any(request.params.draft != 0 for request in requests):
            prepare(model)
        slots = max(1, min(max_rows, len(requests)))
        chunk = default_chunk(model.device, CHUNK) if chunk is None else chunk
        self._engine = Engine(model, slots, chunk=chunk, max_waiting=len(requests), kept=0)
        self._events: deque[Event | End] = deque()
        self._cancelled: set[int] = set()
        self._tickets = [
            self._engine.submit(request, sink=self._events.append, keep_state=keep_states)
            for request in requests
        ]
        self._progress, self._told = progress, 0
        self.seeds = [ticket.seeds[0] for ticket in self._tickets]

    def __next__(self) -> Event:
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, End):
                    if event.error is not None:
                        raise event.error
                elif event.index not in self._cancelled:
                    return event
            if all(ticket.done for ticket in self._tickets):
                self._engine.close()
                raise StopIteration
            self._engine.step()
            self._tell()

    def _tell(self) -> None:
        """Say how much of the prompts was read, if that has changed; nothing once it is all."""
        if self._progress is None:
            return
        read = self._engine.stats().tokens_read
        whole = sum(ticket.prompt_tokens for ticket in self._tickets)
        if read != self._told:
            self._told = read
            self._progress(read, whole)
        if read == whole:
            self._progress = None

    @property
    def running(self) -> int:
        """How many requests are being continued now."""
        return self._engine.stats().running

    def cancel(self, index: int) -> None:
        """Stop a request: no event of it follows. Its state remains if states are kept."""
        self._cancelled.add(index)
        self._engine.cancel(self._tickets[index])

    def context(self, index: int) -> Context:
        """Return where a request that has ended led; its last token is pending.

        Needs keep_states=True. Raises ValueError if there is none.
        """
        context = self._tickets[index].contexts[0]
        if context is None:
            raise ValueError(
                f"no state of request {index} is at hand (has it ended, and is keep_states set?)"
            )
        return context
