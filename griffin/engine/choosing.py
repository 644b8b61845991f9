"""The next token of a row, and what the choice means for its answer."""

from __future__ import annotations

from torch import Tensor

from griffin.engine.request import End, Event, FinishReason
from griffin.engine.row import Row


def choose(row: Row, logits: Tensor) -> Event | End:
    """Choose a row's next token from logits (V,); if that fails, this row ends, no other."""
    ticket, sampler = row.ticket, row.sampler
    assert sampler is not None
    try:
        sample = sampler.sample(logits[: sampler.vocab_size])
    except Exception as error:
        return End(ticket.number, row.choice, "error", error)
    row.chosen.append(sample.id)
    params = ticket.request.params
    reason: FinishReason | None = None
    if sampler.finished or sample.id in ticket.request.stop_ids or sample.id in params.stop_ids:
        reason = "stop"
    elif len(row.chosen) == params.max_tokens:
        reason = "length"
    return Event(ticket.number, *sample, reason, row.choice)
