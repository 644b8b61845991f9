"""How probable the model finds a text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from griffin.engine.read import CHUNK
from griffin.engine.request import check_ids
from griffin.model import Griffin
from griffin.sampling import log_mass

SLAB = 256  # rows of logits that exist at a time


def score(model: Griffin, ids: Sequence[int], *, chunk: int = CHUNK, adapter: str = "") -> Tensor:
    """Return the log-probability of each id given those before it.

    ids:   T token ids; the first is only read (begin with BOS to score a whole text).
    chunk: tokens a call of the model reads; logits are made for at most 256 of them at a time, so
           memory does not grow with the length.
    adapter: name of the model's adapter that reads; "" is none.
    Returns (T - 1,) float32 on the CPU: natural logarithms, from a softmax in float32; to the bit
    what the engine reports for a token that it chose.
    Raises ValueError if there are no ids, or one is outside the vocabulary.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 token, not {chunk}")
    check_ids(ids, model.config.vocab_size, "the text")
    scores = torch.empty(len(ids) - 1)
    state, adapters = None, [model.adapters.index(adapter)]
    with torch.no_grad():
        for start in range(0, len(ids) - 1, chunk):
            end = min(start + chunk, len(ids) - 1)
            tokens = torch.tensor(ids[start : end + 1], dtype=torch.int64, device=model.device)
            donate = state is not None
            hidden, state = model.trunk(tokens[None, :-1], state, donate=donate, adapters=adapters)
            for low in range(0, end - start, SLAB):
                high = min(low + SLAB, end - start)
                logits = model.unembed(hidden[0, low:high]).float()
                chosen = logits.gather(1, tokens[low + 1 : high + 1, None]).squeeze(1)
                scores[start + low : start + high] = (chosen - log_mass(logits)).cpu()
    return scores
