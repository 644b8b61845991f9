"""Reading a prompt of any length in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from griffin.engine.devices import default_chunk
from griffin.engine.request import check_ids
from griffin.model import Griffin, State

# Tokens a call reads on the CPU: large enough for matrix products, small enough for its caches.
CHUNK = 512


def read(
    model: Griffin,
    pieces: Iterable[Sequence[int]],
    state: State | None = None,
    *,
    chunk: int | None = None,
    progress: Callable[[int], object] | None = None,
    adapter: str = "",
) -> tuple[State, Tensor]:
    """Read token ids, one row, and return the state after them and the last hidden value, (1, D).

    pieces:   lists of ids of any lengths; they are taken one after another and never held together.
    state:    what was read before, one row; it is left as it is.
    chunk:    tokens a call of the model reads; 512, on a GPU 4,096, if None. Memory depends on it
              and on nothing else.
    progress: called with the number of tokens read so far after each chunk.
    adapter:  name of the model's adapter that reads; "" is none.
    Raises ValueError if there are no ids at all, or one is outside the vocabulary.
    """
    chunk = default_chunk(model.device, CHUNK) if chunk is None else chunk
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 token, not {chunk}")
    if state is not None and state.batch != 1:
        raise ValueError(
            f"read takes a state of one row, not {state.batch}; use state.select([row])"
        )
    hidden: Tensor | None = None
    done, adapters = 0, [model.adapters.index(adapter)]
    with torch.no_grad():
        for ids in _chunks(pieces, chunk):
            check_ids(ids, model.config.vocab_size)
            tokens = model.tokens([ids])
            # The first state belongs to the caller, every later one to this loop.
            out, state = model.trunk(tokens, state, donate=done > 0, adapters=adapters)
            hidden = out[:, -1].clone()
            done += len(ids)
            if progress is not None:
                progress(done)
    if hidden is None or state is None:
        raise ValueError("the prompt is empty; a model needs at least one token to go on from")
    return state, hidden


def _chunks(pieces: Iterable[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Regroup ids into lists of `size`, the last one shorter."""
    held: list[int] = []
    for piece in pieces:
        held.extend(piece)
        whole = len(held) - len(held) % size
        for start in range(0, whole, size):
            yield held[start : start + size]
        del held[:whole]
    if held:
        yield held
