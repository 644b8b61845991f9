"""Where every text of a model begins, if not at nothing: behind a tuned state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from griffin.engine.context import Context
from griffin.model import State, TunedState


@dataclass(frozen=True)
class Beginning:
    """A tuned state as a model takes it, in the place of BOS.

    state: of one row. digest: of the tuned state; keys: its positions. bos: the id that it stands
    for.
    """

    state: State
    digest: str
    keys: int
    bos: int

    @classmethod
    def of(
        cls, tuned: TunedState, bos: int, dtype: torch.dtype, device: torch.device | str
    ) -> Beginning:
        """Return that of a tuned state for a model of this type, on its device."""
        return cls(tuned.as_state(1, dtype, device), tuned.digest(), tuned.keys, bos)

    def for_ids(self, ids: Sequence[int]) -> State:
        """Return the state that stands for the first of these ids; ValueError if that is not
        BOS."""
        if ids[0] != self.bos:
            raise ValueError(
                f"these ids begin with {ids[0]}; the tuned state stands for BOS ({self.bos}), so a"
                " text behind it has to begin with that"
            )
        return self.state

    def before(self, context: Context) -> Context:
        """Return a context behind the tuned state, one with a state of its own as it is.

        Raises ValueError for ids that do not begin with BOS, and for BOS alone.
        """
        if context.state is not None or not context.pending:
            return context
        state, rest = self.for_ids(context.pending), context.pending[1:]
        if not rest:
            raise ValueError(
                "the prompt is BOS alone; a tuned state stands for that and has no logits of its"
                " own: give at least one token to go on from"
            )
        seen = context.seen.then(context.pending[:1])
        return replace(context, state=state, pending=rest, seen=seen, origin=self.digest)
