"""Who chooses an answer's tokens, the next one of a row, and what it means for its answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from griffin.engine.request import End, Event, FinishReason
from griffin.engine.row import Row
from griffin.engine.ticket import Ticket
from griffin.model import Griffin, GriffinConfig
from griffin.model.screen import unembed_best
from griffin.sampling import Looks, Sample, Sampler


def sampler_of(ticket: Ticket, choice: int, config: GriffinConfig) -> Sampler:
    """Return what chooses the tokens of one answer to a ticket."""
    request = ticket.request
    limit = request.choices(config)
    marks: Tensor | tuple[int, ...] = ()
    if request.params.repetition_penalty != 1:
        marks = request.context.seen.then(ticket.ids).marks(config.vocab_size)[:limit]
    return Sampler(
        request.params.replace(seed=ticket.seeds[choice]),
        limit,
        marks,
        None if request.constraint is None else request.constraint(),
        request.end_ids,
    )


def logits_of(model: Griffin, hidden: Tensor, rows: Sequence[Row]) -> Tensor:
    """Turn what the head looks at (n, D) into logits (n, V), of each row for its own choice.

    A model's screen serves the rows whose choices let it, and no row's logits depend on another.
    """
    looks: list[Looks] = [row.ticket.request.looks_at for row in rows]
    if model.screen is None:
        return model.unembed(hidden)
    if len(set(looks)) == 1:
        return _logits(model, hidden, looks[0])
    logits = hidden.new_empty(len(hidden), model.config.vocab_size, dtype=torch.float32)
    for each in set(looks):
        which = torch.tensor([look == each for look in looks], device=hidden.device)
        logits[which] = _logits(model, hidden[which], each).float()
    return logits


def _logits(model: Griffin, hidden: Tensor, looks: Looks) -> Tensor:
    if looks == "each":
        return model.unembed(hidden)
    return unembed_best(model, hidden, bits=2 if looks == "largest" else 3)


def choose(row: Row, logits: Tensor) -> Event | End:
    """Choose a row's next token from logits (V,); if that fails, this row ends, no other."""
    ticket, sampler = row.ticket, row.sampler
    assert sampler is not None
    try:
        sample = sampler.sample(logits[: sampler.vocab_size])
    except Exception as error:
        return End(ticket.number, row.choice, "error", error)
    return told(row, sample)


def told(row: Row, sample: Sample) -> Event:
    """Add a token that was chosen for a row to its answer, and return what is told of it."""
    ticket, sampler = row.ticket, row.sampler
    assert sampler is not None
    row.chosen.append(sample.id)
    params = ticket.request.params
    reason: FinishReason | None = None
    if sampler.finished or sample.id in ticket.request.end_ids:
        reason = "stop"
    elif len(row.chosen) == params.max_tokens:
        reason = "length"
    return Event(ticket.number, *sample, reason, row.choice)
