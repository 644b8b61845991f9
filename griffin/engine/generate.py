"""The loop: prompts are read one by one, then all rows take a token at a time until each is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from griffin.engine.read import CHUNK, read
from griffin.engine.request import Event, FinishReason, Request, check_ids
from griffin.model import Griffin, State
from griffin.sampling import Sampler, mark_ids

MAX_ROWS = 32


@dataclass
class _Row:
    """A sequence that is being continued: `last` was chosen and not yet read."""

    index: int
    request: Request
    sampler: Sampler
    stop_ids: frozenset[int]
    last: int = 0
    count: int = 0


def generate(
    model: Griffin,
    requests: Sequence[Request],
    *,
    chunk: int = CHUNK,
    max_rows: int = MAX_ROWS,
    keep_states: bool = False,
) -> Generation:
    """Continue every request, and return an iterator of the tokens as they are chosen.

    Prompts are read alone, in chunks counted from their beginning, and each row has its own random numbers;
    so a request gets the same tokens and log-probabilities alone and in company. A row that ends leaves the
    batch at once.
    chunk:       tokens of a prompt a call of the model reads.
    max_rows:    the most rows that are continued together; others wait until one ends.
    keep_states: hold on to the state of each row that ends, for `Generation.state`.
    All requests are checked before this returns: ValueError for an empty prompt, ids, biases or stop ids
    outside the vocabulary, and a state of more than one row.
    """
    return Generation(model, requests, chunk=chunk, max_rows=max_rows, keep_states=keep_states)


class Generation(Iterator[Event]):
    """Requests on their way; iterate for events. `generate` makes it.

    seeds: the seed each request uses, its own or a fresh one.
    """

    def __init__(
        self,
        model: Griffin,
        requests: Sequence[Request],
        *,
        chunk: int = CHUNK,
        max_rows: int = MAX_ROWS,
        keep_states: bool = False,
    ) -> None:
        if max_rows < 1:
            raise ValueError(f"max_rows must be at least 1, not {max_rows}")
        vocab_size = model.config.vocab_size
        self._model = model
        self._chunk = chunk
        self._max_rows = max_rows
        self._keep_states = keep_states
        self._waiting: deque[_Row] = deque()
        self._rows: list[_Row] = []
        self._state: State | None = None  # of self._rows, in their order
        self._ready: list[State] = []  # of the rows at the end of self._rows that have not joined the batch
        self._kept: dict[int, State] = {}
        self._events: deque[Event] = deque()
        self._cancelled: set[int] = set()
        for index, request in enumerate(requests):
            what = "the prompt" if len(requests) == 1 else f"prompt {index}"
            check_ids(request.ids, vocab_size, what)
            if request.state is not None and request.state.batch != 1:
                raise ValueError(f"the state of {what} has {request.state.batch} rows; it must have one")
            seen: Tensor | Sequence[int] = request.ids
            if request.seen is not None and request.params.repetition_penalty != 1:
                seen = mark_ids(request.seen, vocab_size) | mark_ids(request.ids, vocab_size)
            limit = min(request.vocab_size or vocab_size, vocab_size)
            marks = mark_ids(seen, vocab_size)[:limit] if request.params.repetition_penalty != 1 else ()
            sampler = Sampler(request.params, limit, marks)
            stop_ids = request.stop_ids | frozenset(request.params.stop_ids)
            self._waiting.append(_Row(index, request, sampler, stop_ids))
        self.seeds = [row.sampler.seed for row in self._waiting]

    def __next__(self) -> Event:
        while True:
            while self._events:
                event = self._events.popleft()
                if event.index not in self._cancelled:
                    return event
            if not self._waiting and not self._rows:
                raise StopIteration
            with torch.no_grad():
                if self._waiting and len(self._rows) < self._max_rows:
                    self._prefill(self._waiting.popleft())
                else:
                    self._decode()

    def cancel(self, index: int) -> None:
        """Stop a request: no event of it follows. Its state remains if states are kept."""
        self._cancelled.add(index)
        self._waiting = deque(row for row in self._waiting if row.index != index)
        self._leave({row.index for row in self._rows} & {index})

    def state(self, index: int) -> State:
        """Return the state of a request: one row that has read everything but the last token chosen.

        Needs keep_states=True once the row has ended. Raises ValueError if there is none.
        """
        if index in self._kept:
            return self._kept[index]
        for place, row in enumerate(self._rows):
            if row.index == index:
                return self._select([place])
        raise ValueError(f"no state of request {index} is at hand (is keep_states set?)")

    def _prefill(self, row: _Row) -> None:
        request = row.request
        state, hidden = read(self._model, [request.ids], request.state, chunk=self._chunk)
        self._rows.append(row)
        self._ready.append(state)
        self._choose([row], self._model.unembed(hidden))

    def _decode(self) -> None:
        state = self._joined()
        tokens = torch.tensor([[row.last] for row in self._rows], device=self._model.device)
        hidden, self._state = self._model.trunk(tokens, state, donate=True)
        self._choose(self._rows, self._model.unembed(hidden[:, -1]))

    def _choose(self, rows: Sequence[_Row], logits: Tensor) -> None:
        """Choose a token for each row, queue its event, and let rows that are done leave."""
        done: set[int] = set()
        for row, line in zip(rows, logits, strict=True):
            sample = row.sampler.sample(line[: row.sampler.vocab_size])
            row.last, row.count = sample.id, row.count + 1
            reason: FinishReason | None = None
            if sample.id in row.stop_ids:
                reason = "stop"
            elif row.count == row.request.params.max_tokens:
                reason = "length"
            if reason is not None:
                done.add(row.index)
            self._events.append(Event(row.index, *sample, reason))
        self._leave(done)

    def _leave(self, done: set[int]) -> None:
        if not done:
            return
        stay = [place for place, row in enumerate(self._rows) if row.index not in done]
        if self._keep_states:
            for place, row in enumerate(self._rows):
                if row.index in done:
                    self._kept[row.index] = self._select([place])
        state = self._select(stay) if stay else None
        self._rows = [self._rows[place] for place in stay]
        self._state, self._ready = state, []

    def _joined(self) -> State:
        """Return the state of all rows, those that were read last included."""
        if self._ready:
            parts = [self._state] if self._state is not None else []
            self._state, self._ready = State.cat(parts + self._ready), []
        assert self._state is not None
        return self._state

    def _select(self, places: list[int]) -> State:
        return self._joined().select(places)
