"""What the engine is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from griffin.model import State
from griffin.sampling import SamplingParams

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt and how to continue it.

    ids:        the token ids to read, at least one.
    params:     how to choose tokens; its `stop` strings are text and not the engine's concern.
    stop_ids:   ids that end the answer, besides `params.stop_ids`; the last event reports the id itself.
    state:      what was read before `ids`: a State of one row; nothing if omitted. It is left as it is.
    seen:       (V,) bool, the tokens in `state`, for the repetition penalty; only `ids` count if omitted.
    vocab_size: choose among the ids below it, for an embedding with more rows than the tokenizer has tokens;
                log-probabilities are then of those ids alone. All V if omitted.
    """

    ids: Sequence[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    stop_ids: frozenset[int] = frozenset()
    state: State | None = None
    seen: Tensor | None = None
    vocab_size: int | None = None


@dataclass(frozen=True)
class Event:
    """A generated token.

    index:         which request, counted from 0.
    id:            the token.
    logprob:       its log-probability under the model, before any sampling filter.
    alternatives:  the most probable tokens there, as (id, log-probability), as many as were asked for.
    finish_reason: None while the row goes on; "stop" after a stop id, "length" after max_tokens.
    """

    index: int
    id: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...]
    finish_reason: FinishReason | None


def check_ids(ids: Sequence[int], vocab_size: int, what: str = "the prompt") -> None:
    """Raise ValueError if there are no ids, or one is outside the vocabulary (named with its position)."""
    if not len(ids):
        raise ValueError(f"{what} is empty; a model needs at least one token to go on from")
    if min(ids) >= 0 and max(ids) < vocab_size:
        return
    at, bad = next((n, i) for n, i in enumerate(ids) if not 0 <= i < vocab_size)
    raise ValueError(f"{what} has id {bad} at position {at}; the vocabulary has ids 0 to {vocab_size - 1}")
