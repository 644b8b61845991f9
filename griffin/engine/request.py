"""What the engine is asked, what it answers, and what it says when it cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from typing import Literal

import torch

from griffin.engine.context import Context
from griffin.model import Griffin, GriffinConfig, State, StateShape
from griffin.sampling import Constraint, Looks, SamplingParams

FinishReason = Literal["stop", "length"]
EndReason = Literal["cancelled", "deadline", "error"]
Code = Literal[
    "bad_request", "prompt_too_long", "too_many_choices", "queue_full", "no_room", "closed"
]


class Refused(ValueError):
    """A request that is not taken, and why.

    code:  the same in one word, for programs.
    retry: the same request may be taken later; False where it never will.
    """

    def __init__(self, reason: str, code: Code = "bad_request") -> None:
        super().__init__(reason)
        self.code: Code = code

    @property
    def retry(self) -> bool:
        return self.code in ("queue_full", "no_room")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt and how to continue it.

    context:    what to go on from; its pending ids are read, at least one. Its state is left as it
                is.
    params:     how to choose tokens; its `stop` strings are text and not the engine's concern.
    stop_ids:   the model's ids that end an answer, unless `params.ignore_eos`, besides
                `params.stop_ids`; the last event reports the id itself.
    vocab_size: choose among the ids below it, for an embedding with more rows than the tokenizer
                has tokens; log-probabilities are then of those ids alone. All V if omitted.
    constraint: makes what limits an answer, once for each choice; anything may be said if omitted.
    progress:   called on the engine's thread after each piece of the prompt with how many of its
                ids are read. It must not block; if it raises, the request ends with that.
    adapter:    name of the model's adapter that reads and answers; "" is none.
    prediction: ids that the answer will probably say, a source of drafts; any numbers.
    """

    context: Context
    params: SamplingParams = field(default_factory=SamplingParams)
    stop_ids: frozenset[int] = frozenset()
    vocab_size: int | None = None
    constraint: Callable[[], Constraint] | None = None
    progress: Callable[[int], object] | None = None
    adapter: str = ""
    prediction: tuple[int, ...] = ()

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The ids that end an answer."""
        own = frozenset[int]() if self.params.ignore_eos else self.stop_ids
        return own.union(self.params.stop_ids)

    @cached_property
    def looks_at(self) -> Looks:
        """Say which logits an answer's choices look at; a constraint may allow any one alone."""
        return "each" if self.constraint is not None else self.params.looks_at

    def choices(self, config: GriffinConfig) -> int:
        """Return how many ids an answer is chosen from: those below it."""
        return min(self.vocab_size or config.vocab_size, config.vocab_size)


@dataclass(frozen=True)
class Event:
    """A generated token.

    index:         which request, counted from 0 in the order they were given.
    id:            the token.
    logprob:       its log-probability under the model, before any sampling filter.
    alternatives:  the most probable tokens there, as (id, log-probability), as many as were asked
                   for.
    finish_reason: None while the row goes on; "stop" after a stop id or where the constraint lets
                   nothing follow, "length" after max_tokens.
    choice:        which of the request's answers, counted from 0.
    """

    index: int
    id: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...]
    finish_reason: FinishReason | None
    choice: int = 0


@dataclass(frozen=True)
class End:
    """The end of an answer that no token brought.

    finish_reason: "cancelled", "deadline", or "error", and then `error` is the exception.
    """

    index: int
    choice: int
    finish_reason: EndReason
    error: BaseException | None = None


def check_ids(ids: Sequence[int], vocab_size: int, what: str = "the prompt") -> None:
    """Raise ValueError if there are no ids, or for one outside the vocabulary, with its place."""
    if not len(ids):
        raise Refused(f"{what} is empty; a model needs at least one token to go on from")
    if wrong := [kind.__name__ for kind in set(map(type, ids)) if not issubclass(kind, Integral)]:
        raise Refused(f"{what} holds {' and '.join(wrong)}; ids are whole numbers")
    if min(ids) >= 0 and max(ids) < vocab_size:
        return
    at, bad = next((n, i) for n, i in enumerate(ids) if not 0 <= i < vocab_size)
    raise Refused(
        f"{what} has id {bad} at position {at}; the vocabulary has ids 0 to {vocab_size - 1}"
    )


def check_length(request: Request, most: int | None) -> None:
    """Raise Refused for a prompt of more tokens than an engine accepts; None is any number."""
    length = len(request.context.pending)
    if most is not None and length > most:
        raise Refused(
            f"the prompt has {length} tokens; this engine accepts {most} (raise it with"
            " max_prompt_tokens)",
            "prompt_too_long",
        )


def check_request(request: Request, model: Griffin, what: str = "the prompt") -> None:
    """Raise Refused if a model cannot answer a request. Nothing is allocated."""
    config = model.config
    check_ids(request.context.pending, config.vocab_size, what)
    if request.vocab_size is not None and request.vocab_size < 1:
        raise Refused(
            f"vocab_size of {what} is {request.vocab_size}; there must be an id to choose"
        )
    try:
        model.adapters.index(request.adapter)
        request.context.seen.check(config.vocab_size)
        request.params.check_vocabulary(request.choices(config))
    except ValueError as error:
        raise Refused(str(error)) from error
    if request.context.state is not None:
        _check_state(request.context.state, config, model.dtype, what)


def _check_state(state: State, config: GriffinConfig, dtype: torch.dtype, what: str) -> None:
    if state.pos.dim() and state.batch != 1:
        raise Refused(f"the state of {what} has {state.batch} rows; it must have one")
    own = State.zeros(config, 1, dtype=dtype, device="meta")
    kinds = [[(t.shape, t.dtype) for t in layer] for layer in own.layers]
    given = [[(t.shape, t.dtype) for t in layer] for layer in state.layers]
    if kinds != given:
        layer = next(
            (n for n, (a, b) in enumerate(zip(kinds, given, strict=False)) if a != b), None
        )
        where = "another number of layers" if layer is None else f"layer {layer} is another"
        raise Refused(f"the state of {what} is not of this model and type ({dtype}): {where}")
    try:
        if state.pos.is_meta:
            raise ValueError("it lies on the meta device, which holds nothing")
        state.check(StateShape.of(config, dtype), batch=1)
    except ValueError as error:
        raise Refused(f"the state of {what} cannot be gone on from: {error}") from error
