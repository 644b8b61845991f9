"""How probable the model finds a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from griffin.engine.read import CHUNK
from griffin.engine.request import check_ids
from griffin.model import Griffin, State
from griffin.sampling import log_mass

SLAB = 256  # rows of logits that exist at a time


def score(
    model: Griffin,
    ids: Sequence[int],
    *,
    chunk: int = CHUNK,
    adapter: str = "",
    begins: State | None = None,
) -> Tensor:
    """Return the log-probability of each id given those before it.

    ids:   T token ids; the first is only read (begin with BOS to score a whole text).
    chunk: tokens a call of the model reads; logits are made for at most 256 of them at a time, so
           memory does not grow with the length.
    adapter, begins: as for `hidden_pieces`.
    Returns (T - 1,) float32 on the CPU: natural logarithms, from a softmax in float32; to the bit
    what the engine reports for a token that it chose.
    Raises ValueError if there are no ids, or one is outside the vocabulary.
    """
    check_ids(ids, model.config.vocab_size, "the text")
    scores = torch.empty(len(ids) - 1)
    with torch.no_grad():
        for start, hidden in hidden_pieces(model, ids, chunk, adapter, begins):
            end = start + len(hidden)
            wanted = torch.tensor(ids[start + 1 : end + 1], device=model.device)
            scores[start:end] = target_logprobs(model, hidden, wanted)
    return scores


def target_logprobs(model: Griffin, hidden: Tensor, targets: Tensor) -> Tensor:
    """Return the log-probability of each target, (N,) float32 on the CPU, to the bit what the
    engine reports for a token that it chose. hidden: (N, D) of what the head looks at; targets:
    (N,) int64. Logits are made for at most `SLAB` of them at a time."""
    found = torch.empty(len(targets))
    for low in range(0, len(targets), SLAB):
        part = slice(low, low + SLAB)
        logits = model.unembed(hidden[part]).float()
        chosen = logits.gather(1, targets[part, None]).squeeze(1)
        found[part] = (chosen - log_mass(logits)).cpu()
    return found


def scored_targets(
    model: Griffin, hidden: Tensor, targets: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each target, as `target_logprobs` does, and whether it is the
    most probable id there.

    hidden: (N, D) of what the head looks at. targets: (M,) int64. rows: (M,) int64, after which of
    the N each stands; several may stand after one, whose logits are made once.
    Returns (M,) float32 and (M,) bool on the CPU.
    """
    found, best = torch.empty(len(targets)), torch.empty(len(targets), dtype=torch.bool)
    for low in range(0, len(hidden), SLAB):
        logits = model.unembed(hidden[low : low + SLAB]).float()
        here = ((rows >= low) & (rows < low + SLAB)).nonzero().squeeze(1)
        wanted, at = targets[here], rows[here] - low
        found[here.cpu()] = (logits[at, wanted] - log_mass(logits)[at]).cpu()
        best[here.cpu()] = (logits.argmax(1)[at] == wanted).cpu()
    return found, best


def hidden_pieces(
    model: Griffin,
    ids: Sequence[int],
    chunk: int = CHUNK,
    adapter: str = "",
    begins: State | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Read a text but for its last id; yield pieces (t, D) of what the head looks at, each with the
    place of its first id.

    adapter: name of the model's adapter that reads; "" is none.
    begins:  the tuned state that stands for the first id, one row; it is left as it is. What comes
             after the first id is then as likely as without it: a state has no logits of its own.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 token, not {chunk}")
    state, start, adapters = None, 0, [model.adapters.index(adapter)]
    while start < len(ids) - 1:
        alone = begins is not None and start == 0
        end = min(start + (1 if alone else chunk), len(ids) - 1)
        tokens = torch.tensor([list(ids[start:end])], dtype=torch.int64, device=model.device)
        donate = start > (begins is not None)
        hidden, state = model.trunk(tokens, state, donate=donate, adapters=adapters)
        state = begins if alone else state
        yield start, hidden[0]
        start = end
