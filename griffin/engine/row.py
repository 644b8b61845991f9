"""One answer on its way: what has been read, what was chosen last, and where its state lies."""

from __future__ import annotations

from array import array
from typing import Literal

from griffin.engine.ticket import Ticket
from griffin.model import State
from griffin.sampling import Sampler

Phase = Literal["waiting", "reading", "running", "paused", "ended"]


class Kept:
    """A state outside the slots; choices of one request may share it, for nobody changes it.

    users: rows that will begin from it. With the last of them its place becomes free.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.users = 1


class Row:
    """A choice of a ticket.

    phase:    waiting (for a slot), reading its prompt, running, paused or ended.
    sampler:  None while the prompt is read: that row reads for every choice of its ticket.
    read:     how many ids of the prompt its state has read.
    chosen:   the tokens of the answer; its state has not read the last one.
    kept:     its state while it has no slot; None if nothing was read.
    reserved: it holds a place for the state that choices without a slot will share.
    entered:  the engine's turn in which it got the slot that it has.
    """

    def __init__(self, ticket: Ticket, choice: int = 0, sampler: Sampler | None = None) -> None:
        self.ticket = ticket
        self.choice = choice
        self.phase: Phase = "waiting"
        self.sampler = sampler
        self.read = 0 if sampler is None else ticket.prompt_tokens
        self.chosen: list[int] = []
        self.kept: Kept | None = None
        self.reserved = False
        self.entered = 0

    @property
    def forks(self) -> bool:
        """Whether choices will begin from its state, for which a place has to be there."""
        return self.sampler is None and self.ticket.n > 1

    @property
    def left(self) -> int:
        """Ids of the prompt that have not been read."""
        return self.ticket.prompt_tokens - self.read

    @property
    def pending(self) -> tuple[int, ...]:
        """Return the ids that were given or chosen and have not been read yet."""
        if self.chosen:
            return (self.chosen[-1],)
        return tuple(self.ticket.ids[self.read :])

    def next_ids(self, chunk: int) -> array[int]:
        """Return the ids of the prompt to read in the next call, up to a multiple of `chunk`.

        Borders are counted from the document's beginning, so they are the same whether its
        beginning is read now, was read before, or comes from a cache.
        """
        position = self.ticket.offset + self.read
        return self.ticket.ids[self.read : self.read + chunk - position % chunk]
