"""Rows that are moved on by graphs: the next step is launched before the last one is looked at.

docs/engine.md has a picture of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from griffin.engine.batch import Batch
from griffin.engine.choosing import choose, told
from griffin.engine.flight import TABLES, Flight, StepMemory
from griffin.engine.forms import Forms
from griffin.engine.graphs import Graphs, Replay, bucket_of, buckets
from griffin.engine.request import End, Event
from griffin.engine.row import Row
from griffin.engine.runner import Chosen, ModelRunner
from griffin.engine.slots import Slots
from griffin.model import Griffin, Marks
from griffin.model.decode_step import DecodeStep, DrawnTokens
from griffin.sampling import Sample, SamplingParams
from griffin.sampling.table import as_bits, bias_of, mask_of, row_values

_FINE, _NOT_FINITE = 0, 1
_NOWHERE = (-1, -1, -1, -1)


class GraphRunner:
    """A Runner that replays a graph for each step, one for every bucket of rows.

    slots:    of the engine, made with stack=True; every step changes their memory in place.
    graphs:   what records and replays.
    progress: called with how many of all graphs have been captured.
    sizes:    rows that there are graphs for, rising, the last for all slots; `buckets` of them if
              omitted.
    memory:   what host and device tell each other. lines: the logits of the last step, a row each.
    replays:  of each size, its graph.
    Prompts are read by the model, as without it. A step's tokens are drawn on the device from
    uniforms that the host drew, and the next step reads them there; the host looks at them while
    that one runs. A row that turns out to have ended has run one step too many, and goes back by
    it. Rows with a constraint, stop strings, alternatives or fewer ids than the model are looked at
    before they go on: they run in every second step where others do not wait. What a constraint
    allows goes up as bits, with all else that a step is told.
    """

    def __init__(
        self,
        model: Griffin,
        slots: Slots,
        graphs: Graphs,
        progress: Callable[[int, int], object] = lambda done, of: None,
        sizes: Sequence[int] | None = None,
    ) -> None:
        self.steps = 0
        self._plain = ModelRunner(model)
        self._vocab_size = model.config.vocab_size
        self._tables = min(slots.count, TABLES)
        self.memory = StepMemory(slots.count, self._vocab_size, self._tables, model.device)
        whole = slots.view(0, slots.count)
        assert slots.stacked is not None
        self._step = DecodeStep(model, whole, slots.stacked, slots.count)
        self._buckets = list(sizes or buckets(slots.count))
        self._places: dict[Row, int | None] = {}  # None: the host chooses for it
        self._forms = Forms()
        self._flying: Flight | None = None
        # Where each step's logits lie: graphs would keep them apart from each other.
        shape = slots.count, self._vocab_size
        self.lines = torch.empty(shape, dtype=torch.float32, device=model.device)
        self.replays: dict[int, Replay] = {}
        # The largest first: the others' memory is a part of its own.
        for done, size in enumerate(reversed(self._buckets)):
            self.replays[size] = graphs.capture(self._call(size))
            progress(done + 1, len(self._buckets))

    @property
    def nbytes(self) -> int:
        """Bytes on the device besides slots, weights and what lies between two launches."""
        return self.memory.nbytes + self._step.nbytes + self.lines.nbytes

    def read(self, batch: Batch, row: Row, tokens: Tensor, marks: Marks | None = None) -> Tensor:
        if row.ticket.adapter >= 0:
            raise ValueError(
                "a step by graphs adds no adapter, and this model got one after its engine was"
                " made; make the engine anew, which then steps by calls of the model"
            )
        return self._plain.read(batch, row, tokens, marks)

    def unembed(self, hidden: Tensor, rows: Sequence[Row]) -> Tensor:
        return self._plain.unembed(hidden, rows)

    def step(self, batch: Batch) -> Chosen:
        try:
            flight = self._flying or self._launch(batch, len(batch.running))
            self._flying = flight
            # Those that surely go on stand in front, and are on their way before anybody looks.
            ahead = self._in_front(batch, flight)
            following = self._launch(batch, ahead) if ahead else None
            chosen = self._look(batch, flight)
        except BaseException:
            self._flying = None
            raise
        self._flying = following
        return chosen or self.step(batch)

    def settle(self, batch: Batch, row: Row) -> None:
        flight = self._flying
        if flight is None or row not in flight.rows or row in flight.dropped:
            return
        flight.dropped.add(row)
        at = flight.rows.index(row)
        self._step.go_back(batch.slot(row), at, flight.bucket)
        if row in flight.logits:
            return  # the host chose for it, or would have
        assert row.sampler is not None
        row.sampler.take_back(flight.uniforms[at])
        if (place := self._places[row]) is not None and place >= 0:
            token = self.memory.token[at : at + 1]
            self.memory.counts[place].index_add_(0, token, token.new_full((1,), -2).int())

    def _call(self, size: int) -> Replay:
        """Return the launches of a step of so many rows."""
        memory, step, lines = self.memory, self._step, self.lines[:size]
        source, draw = memory.told["source"][:size], memory.draw(size)
        drawn = DrawnTokens(*(t[:size] for t in (memory.token, memory.logprob, memory.fault)))

        def call() -> None:
            tokens = memory.tokens.index_select(0, source)
            step.logits(tokens, memory.live, out=lines)
            step.draw(lines, draw, memory.live, drawn)

        return call

    def _launch(self, batch: Batch, count: int) -> Flight:
        """Let the first `count` running rows read their last token and draw the next."""
        rows, last = batch.running[:count], self._flying
        drawn = {} if last is None else {row: n for n, row in enumerate(last.rows)}
        bucket = bucket_of(count, self._buckets)
        values = _Values(bucket)
        self._let_go(batch)
        uniforms: list[float] = []
        forms: list[Tensor] = []
        torn: dict[Row, Exception] = {}
        for row in rows:
            sampler = row.sampler
            assert sampler is not None
            fresh = last is not None and row in drawn and row not in last.dropped
            by_host = self._by_host(row)
            uniforms.append(0.0 if by_host else sampler.uniform())
            form: Tensor | Exception | None = None
            if not by_host and row.ticket.request.constraint is not None:
                form = self._forms.take(row)
            if isinstance(form, Exception):
                torn[row] = form
            values.add(
                source=drawn[row] if fresh else self.memory.rows + len(values.given),
                given=0 if fresh else row.chosen[-1],
                uniform=uniforms[-1],
                params=row_values(sampler.params),
                places=_NOWHERE if by_host else self._kept_places(row, int(fresh)),
                form=len(forms) if isinstance(form, Tensor) else None,
            )
            if isinstance(form, Tensor):
                forms.append(form)
        self.memory.tell(values.columns(live=count), values.places(), forms)
        self.replays[bucket]()
        self.steps += 1
        logits = {
            row: self.memory.host_copy(self.lines[n])
            for n, row in enumerate(rows)
            if self._by_host(row)
        }
        return Flight(list(rows), bucket, uniforms, self.memory.fetch(), logits, torn)

    def _look(self, batch: Batch, flight: Flight) -> Chosen:
        """Wait for a step and return what it chose for the rows that still run."""
        tokens, logprobs, faults = flight.drawn.wait()
        running = set(batch.running)
        chosen: list[tuple[Row, Event | End]] = []
        for n, row in enumerate(flight.rows):
            if row in flight.dropped or row not in running:
                continue
            sampler = row.sampler
            assert sampler is not None
            if row in flight.logits:
                chosen.append((row, choose(row, flight.logits[row])))
                continue
            try:
                if faults[n] != _NOT_FINITE and row in flight.torn:
                    raise flight.torn[row]
                if faults[n] != _FINE:
                    raise _fault(faults[n])
                sampler.took(tokens[n])
            except Exception as error:
                chosen.append((row, End(row.ticket.number, row.choice, "error", error)))
                continue
            event = told(row, Sample(tokens[n], logprobs[n], ()))
            if row.ticket.request.constraint is not None and event.finish_reason is None:
                self._forms.look(row)
            chosen.append((row, event))
        return chosen

    def _in_front(self, batch: Batch, flight: Flight) -> int:
        """Bring the rows that go on whatever a flight draws to the front; return their number."""
        flies = set(flight.rows) - flight.dropped

        def goes_on(row: Row) -> bool:
            if _waits(row) or self._by_host(row):
                return row not in flies
            return len(row.chosen) + (row in flies) < row.ticket.request.params.max_tokens

        front = 0
        for n, row in enumerate(list(batch.running)):
            if goes_on(row):
                if n != front:
                    batch.exchange(front, n)
                front += 1
        # Where all of them were looked at, there is a flight to look at all the same.
        return front

    def _by_host(self, row: Row) -> bool:
        """Return whether the host chooses a row's tokens, from its logits; as long as it runs."""
        if row not in self._places:
            self._places[row] = self._place(row)
        return self._places[row] is None

    def _place(self, row: Row) -> int | None:
        """Return a row's place in the tables on the device, filled; -1 where it needs none, None
        where the host has to choose for it."""
        sampler, memory = row.sampler, self.memory
        assert sampler is not None
        if sampler.params.logprobs or sampler.vocab_size != self._vocab_size:
            return None
        if not _needs_place(sampler.params):
            return -1
        free = set(range(self._tables)) - set(self._places.values())
        if not free:
            return None
        place = min(free)
        params, size = sampler.params, self._vocab_size
        if (counts := sampler.counts()) is not None:
            memory.counts[place].copy_(counts)
        if (bias := bias_of(params, size)) is not None:
            memory.bias[place].copy_(bias)
        if (mask := mask_of(params, size, first=False)) is not None:
            memory.masks[memory.rows + 2 * place].copy_(as_bits(mask))
        if len(sampler.ends):
            ends = sampler.ends.new_zeros(size).bool().index_fill(0, sampler.ends, True)
            memory.masks[memory.rows + 2 * place + 1].copy_(as_bits(ends))
        return place

    def _kept_places(self, row: Row, flies: int) -> tuple[int, int, int, int]:
        """Return where a row's counts, bias and mask are, and its ends as long as it may not."""
        place, sampler = self._places.get(row), row.sampler
        if place is None or place < 0 or sampler is None:
            return _NOWHERE
        params, early = sampler.params, len(row.chosen) + flies < sampler.params.min_tokens
        masked = params.allowed_ids is not None or bool(params.suppress_ids)
        mask = self.memory.rows + 2 * place
        return (
            place if _counts(params) else -1,
            place if params.logit_bias else -1,
            mask if masked else -1,
            mask + 1 if early and len(sampler.ends) else -1,
        )

    def _let_go(self, batch: Batch) -> None:
        running = set(batch.running)
        for row in [row for row in self._places if row not in running]:
            del self._places[row]


class _Values:
    """A step's values, gathered row by row; rows that are not there get the first one's."""

    def __init__(self, bucket: int) -> None:
        self._bucket = bucket
        self._rows: list[dict[str, Any]] = []
        self._places: list[tuple[int, int, int, int]] = []

    @property
    def given(self) -> list[dict[str, Any]]:
        return self._rows

    def add(
        self,
        *,
        source: int,
        given: int,
        uniform: float,
        params: dict[str, float],
        places: tuple[int, int, int, int],
        form: int | None,
    ) -> None:
        self._rows.append({"source": source, "given": given, "uniform": uniform, **params})
        counts, bias, mask, ends = places
        # A constraint's mask has the row's own in it.
        self._places.append((counts, bias, mask if form is None else form, ends))

    def columns(self, live: int) -> dict[str, list[Any]]:
        rows = self._rows + [self._rows[0]] * (self._bucket - len(self._rows))
        return {name: [row[name] for row in rows] for name in rows[0]} | {"live": [live]}

    def places(self) -> list[list[int]]:
        rows = self._places + [_NOWHERE] * (self._bucket - len(self._places))
        return [list(kind) for kind in zip(*rows, strict=True)]


def _waits(row: Row) -> bool:
    """Return whether a row's token has to be looked at before it may go on."""
    request = row.ticket.request
    return bool(request.params.stop) or request.constraint is not None


def _counts(params: SamplingParams) -> bool:
    return bool(
        params.repetition_penalty != 1 or params.presence_penalty or params.frequency_penalty
    )


def _needs_place(params: SamplingParams) -> bool:
    masked = params.allowed_ids is not None or params.suppress_ids or params.min_tokens > 1
    return bool(_counts(params) or params.logit_bias or masked)


def _fault(fault: int) -> Exception:
    if fault == _NOT_FINITE:
        return FloatingPointError("the model's logits are not finite")
    return ValueError("of all ids that the model can choose here the request allows none")
