"""Log-probabilities of a prompt's own tokens: a pass of its own beside the engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from griffin.engine import hidden_pieces
from griffin.llm import LLM
from griffin.server.measuring import Cancelled

CHUNK = 256  # tokens, and rows of logits, at a time


class TokenScore(NamedTuple):
    """What a model makes of a token: its log-probability, and the most probable ones there.

    rank: 1 for the most probable, if ranks were asked for.
    """

    logprob: float
    alternatives: tuple[tuple[int, float], ...]
    rank: int = 0


def score_prompt(
    llm: LLM, ids: Sequence[int], alternatives: int, stop: threading.Event, *, ranks: bool = False
) -> Iterator[list[TokenScore | None]]:
    """Yield the scores of a prompt's tokens, some at a time; None for the first one.

    Nothing precedes that. alternatives: how many of the most probable tokens to give beside each.
    stop: when it is set, Cancelled is raised before the next chunk. Log-probabilities are over the
    tokenizer's ids, as the engine's are.
    """
    model, size = llm.model, llm.tokenizer.vocab_size
    begins = llm.beginning and llm.beginning.for_ids(ids)
    yield [None]
    with torch.no_grad():
        for start, hidden in hidden_pieces(model, ids, CHUNK, llm.adapter, begins):
            if stop.is_set():
                raise Cancelled
            wanted = ids[start + 1 : start + 1 + len(hidden)]
            logprobs = model.unembed(hidden)[:, :size].float().log_softmax(1)
            own = logprobs.gather(1, torch.tensor(wanted, device=model.device)[:, None])
            above = (logprobs > own).sum(1).tolist() if ranks else [-1] * len(own)
            chosen = own.squeeze(1).tolist()
            if alternatives:
                best = logprobs.topk(min(alternatives, size))
                rows = [
                    tuple(zip(i, v, strict=True))
                    for i, v in zip(best.indices.tolist(), best.values.tolist(), strict=True)
                ]
            else:
                rows = [()] * len(chosen)
            yield [
                TokenScore(value, row, 1 + better)
                for value, row, better in zip(chosen, rows, above, strict=True)
            ]
