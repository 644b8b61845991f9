"""Where to go on: what was read, and the ids that come next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from griffin.model import State
from griffin.sampling import mark_ids


class Seen:
    """Which tokens a state has read; marked when a penalty asks for them, not before.

    parts: of what was read, each as ids, as a (V,) bool mask, or as a function that gives ids.
    """

    def __init__(self, *parts: Sequence[int] | Tensor | Callable[[], Sequence[int]]) -> None:
        self._parts = parts

    def then(self, ids: Sequence[int] | Tensor) -> Seen:
        """Return these tokens and some more."""
        return Seen(*self._parts, ids) if len(ids) else self

    def ids(self) -> list[int]:
        """Return the tokens whose order is known; those that are only marked are left out."""
        found: list[int] = []
        for part in self._parts:
            if not isinstance(part, Tensor):
                found += part() if callable(part) else part
        return found

    def check(self, vocab_size: int) -> None:
        """Raise ValueError for a mask that is not of so many ids."""
        for part in self._parts:
            if isinstance(part, Tensor) and part.shape != (vocab_size,):
                raise ValueError(
                    f"seen has shape {tuple(part.shape)}; it marks the model's {vocab_size} ids"
                )

    def marks(self, vocab_size: int) -> Tensor:
        """Return a (V,) bool mask on the CPU, the caller's own; ValueError for one of another V."""
        mask = torch.zeros(vocab_size, dtype=torch.bool)
        for part in self._parts:
            mask |= mark_ids(part() if callable(part) else part, vocab_size)
        return mask


@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """Where a conversation, a text or a prompt goes on: the only answer to that question.

    state:   what was read, one row, on any device; None if nothing was.
    pending: the ids that come next. An answer needs at least one; a state cannot step back.
    seen:    which tokens `state` has read, for the repetition penalty.
    tokens:  how many tokens `state` and `pending` hold together.
    origin:  digest of the tuned state that `state` is, where it has read nothing since: by that the
             prefix cache knows what follows. "" for any other state.
    A context is a value: going on from it leaves it as it is, so several answers may fork from one.
    `Context()` is nothing at all, `Context().then(ids)` a prompt.
    """

    state: State | None = None
    pending: tuple[int, ...] = ()
    seen: Seen = field(default_factory=Seen)
    tokens: int = 0
    origin: str = ""

    @property
    def read(self) -> int:
        """How many tokens `state` has read."""
        return self.tokens - len(self.pending)

    def then(self, ids: Sequence[int]) -> Context:
        """Return the context with more ids to read."""
        return replace(self, pending=(*self.pending, *ids), tokens=self.tokens + len(ids))

    def after(
        self, state: State | None, pending: tuple[int, ...], answer: Sequence[int] = ()
    ) -> Context:
        """Return where this leads when it was read and answered.

        state:   after it, one row. pending: what that has not read, the end of `answer`, or of this
                 context's own ids where reading was cut short.
        answer:  the ids that were chosen.
        """
        tokens = self.tokens + len(answer)
        ids = (*self.pending, *answer)
        read = ids[: len(ids) - len(pending)]
        return Context(state=state, pending=pending, seen=self.seen.then(read), tokens=tokens)

    def to(self, device: torch.device | str) -> Context:
        """Return the context with its state on a device; itself if it is there."""
        if self.state is None or self.state.pos.device == torch.device(device):
            return self
        return replace(self, state=self.state.map(lambda tensor: tensor.to(device)))
