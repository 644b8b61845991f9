"""One sampler a row, with its own random numbers.

The order is penalties, bias, what is suppressed or not allowed, constraint, min_tokens,
temperature, min_p, top_k, top_p, draw. Each filter sees
what the one before it left over. Ties are always broken towards the lowest id, so `top_k=1` is
exactly greedy.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from griffin.sampling.constraint import Constraint, ConstraintError, Forcing
from griffin.sampling.filters import (
    best_ids,
    block_sums,
    log_of,
    pick,
    support,
    top,
    weights_of,
)
from griffin.sampling.params import SamplingParams
from griffin.sampling.table import mask_of

_NOTHING = "the constraint allows no token that the model can choose here"


class Sample(NamedTuple):
    """A chosen token, its log-probability, and the most probable tokens with theirs."""

    id: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...]


class Sampler:
    """Choose the tokens of one row, remembering what it chose.

    params:     how to choose.
    vocab_size: V, the length of every logits row.
    prompt_ids: the ids of the prompt, or a (V,) bool tensor that marks them; only the repetition
                penalty looks at them. Memory is bounded by V whatever the length of prompt and
                answer.
    constraint: what the row may say; anything if omitted.
    end_ids:    what ends the row; `params.min_tokens` keeps them back.

    `finished` tells that the constraint lets nothing follow what was chosen.
    `seed` is the one in use: `params.seed`, or a fresh one. A token costs exactly one random
    number, drawn on the CPU, so a row's tokens depend on nothing but its logits, its parameters and
    its seed.
    """

    def __init__(
        self,
        params: SamplingParams,
        vocab_size: int,
        prompt_ids: Iterable[int] | Tensor = (),
        constraint: Constraint | None = None,
        end_ids: Iterable[int] = (),
    ) -> None:
        params.check_vocabulary(vocab_size)
        self.params = params
        self.vocab_size = vocab_size
        self.seed = secrets.randbits(63) if params.seed is None else params.seed
        self.finished = False
        self._constraint = constraint
        self._generator = torch.Generator().manual_seed(self.seed)
        self._returned: list[float] = []
        self._counts: Tensor | None = None
        self._prompt: Tensor | None = None
        if params.repetition_penalty != 1 or params.presence_penalty or params.frequency_penalty:
            self._counts = torch.zeros(vocab_size, dtype=torch.int32)
        if params.repetition_penalty != 1:
            self._prompt = mark_ids(prompt_ids, vocab_size)
        # The ids whose logits a penalty changes: few of a large vocabulary.
        self._seen = _ids(()) if self._prompt is None else self._prompt.nonzero().squeeze(1)
        self._chosen = 0
        self._suppressed = _ids(params.suppress_ids)
        self._not_first = _ids(params.begin_suppress_ids)
        self._allowed = None if params.allowed_ids is None else _ids(params.allowed_ids)
        self._ends = _ids(id for id in end_ids if id < vocab_size)
        self._bias_ids = torch.tensor(list(params.logit_bias), dtype=torch.int64)
        self._bias = torch.tensor(list(params.logit_bias.values()), dtype=torch.float32)

    def sample(self, logits: Tensor) -> Sample:
        """Choose the next token from a row of logits and remember it.

        logits: (V,) float32, left as it is.
        Log-probabilities are those of the model's own distribution, log_softmax(logits), before
        penalties, bias, constraint, temperature and filters.
        Raises FloatingPointError if the row holds NaN or nothing finite, ConstraintError if its
        constraint allows no token, and what the constraint itself raises.
        """
        if logits.shape != (self.vocab_size,):
            raise ValueError(
                f"logits have shape {tuple(logits.shape)}; this row needs ({self.vocab_size},)"
            )
        logits = logits.detach().float()
        place, best = top(logits)
        if not math.isfinite(best):
            raise FloatingPointError(f"the model's logits are not finite (their maximum is {best})")
        shaped = self._constrained(self._shape(logits))
        if self._chosen < self.params.min_tokens:
            shaped = self._endless(shaped)
        own = _Weighed(logits, best)
        if shaped is logits:
            token = place if self.params.temperature == 0 else self._draw(logits, best, own)
        else:
            place, highest = top(shaped)
            token = place if self.params.temperature == 0 else self._draw(shaped, highest)
        self._remember(token)
        return self._report(token, logits, own)

    def forced(self) -> list[int]:
        """Return the ids that the constraint leaves no choice for, as far as it says so."""
        constraint = self._constraint
        return list(constraint.forced()) if isinstance(constraint, Forcing) else []

    def _shape(self, logits: Tensor) -> Tensor:
        """Return the logits after penalties and bias, minus infinity for what is suppressed."""
        never = [self._suppressed] if self._chosen else [self._suppressed, self._not_first]
        if self._allowed is None and not any(map(len, (self._seen, self._bias_ids, *never))):
            return logits
        given, logits = logits, logits.clone()
        if len(self._seen):
            where = self._seen.to(logits.device)
            logits.index_copy_(0, where, self._penalized(given[where]))
        if len(self._bias_ids):
            where = self._bias_ids.to(logits.device)
            logits.index_add_(0, where, self._bias.to(logits.device))
        for ids in never:
            logits.index_fill_(0, ids.to(logits.device), -torch.inf)
        if self._allowed is not None:
            allowed = self._allowed.to(logits.device)
            only = torch.full_like(logits, -torch.inf)
            logits = only.index_copy_(0, allowed, logits[allowed])
        return logits

    def _penalized(self, logits: Tensor) -> Tensor:
        """Return the logits (n,) of what was seen after the penalties."""
        assert self._counts is not None
        params, counts = self.params, self._counts[self._seen].to(logits.device)
        if self._prompt is not None:
            penalty = params.repetition_penalty
            logits = torch.where(logits > 0, logits / penalty, logits * penalty)
        return (
            logits
            - params.frequency_penalty * counts
            - params.presence_penalty * (counts > 0).float()
        )

    def _constrained(self, logits: Tensor) -> Tensor:
        """Return the logits with minus infinity for what the constraint does not allow."""
        if (mask := self._mask()) is None:
            return logits
        logits = torch.where(mask.to(logits.device), logits, -torch.inf)
        if top(logits)[1] == -math.inf:
            raise ConstraintError(_NOTHING)
        return logits

    def _mask(self) -> Tensor | None:
        """Return what the constraint allows; ValueError for a mask of other ids."""
        mask = None if self._constraint is None else self._constraint.allowed()
        if mask is not None and mask.shape != (self.vocab_size,):
            raise ValueError(
                f"the constraint marks {tuple(mask.shape)} ids; this row chooses among"
                f" {self.vocab_size}"
            )
        return mask

    def _endless(self, logits: Tensor) -> Tensor:
        """Return the logits without what ends the row, as they are where nothing else is left."""
        others = logits.index_fill(0, self._ends.to(logits.device), -torch.inf)
        return logits if top(others)[1] == -math.inf else others

    def _draw(self, logits: Tensor, best: float, own: _Weighed | None = None) -> int:
        """Draw from logits (V,), the largest of which is `best`.

        own: their weights at temperature 1, where these are the model's own logits.
        """
        temperature = self.params.temperature
        weights = own.weights if own is not None and temperature == 1 else None
        ids = support(logits, self.params, best, weights)
        if ids is not None:
            return int(ids[pick(weights_of(logits[ids], best, temperature), self.uniform())])
        if weights is None or own is None:
            return pick(weights_of(logits, best, temperature), self.uniform())
        return pick(weights, self.uniform(), own.blocks)

    # For whoever draws on a device: a token costs the same number there.

    def uniform(self) -> float:
        """Draw the next token's random number; 0 where none is needed."""
        if self.params.temperature == 0:
            return 0.0
        if self._returned:
            return self._returned.pop()
        return torch.rand((), dtype=torch.float64, generator=self._generator).item()

    def take_back(self, u: float) -> None:
        """Take a random number back that no token was drawn with: it is the next one."""
        if self.params.temperature:
            self._returned.append(u)

    def allowed(self) -> Tensor | None:
        """Mark what the constraint lets follow and the parameters do not suppress, (V,) bool; None
        where it says nothing. Not for the first token.

        Raises ConstraintError for nothing at all, and what the constraint itself raises.
        """
        mask = self._mask()
        if mask is None:
            return None
        own = mask_of(self.params, self.vocab_size, first=False)
        mask = mask.cpu() if own is None else mask.cpu() & own
        if not mask.any():
            raise ConstraintError(_NOTHING)
        return mask

    def took(self, token: int) -> None:
        """Remember a token that was drawn elsewhere. Raises what the constraint raises."""
        self._remember(token)

    def counts(self) -> Tensor | None:
        """Return twice how often each token was chosen, plus 1 if the prompt has it: (V,) int32;
        None if no penalty looks at that."""
        if self._counts is None:
            return None
        return 2 * self._counts + (0 if self._prompt is None else self._prompt.int())

    @property
    def ends(self) -> Tensor:
        """The ids that `min_tokens` keeps back."""
        return self._ends

    def _remember(self, token: int) -> None:
        self._chosen += 1
        if self._counts is not None:
            if not self._counts[token] and (self._prompt is None or not self._prompt[token]):
                self._seen = torch.cat([self._seen, torch.tensor([token])])
            self._counts[token] += 1
        if self._constraint is not None:
            self.finished = self._constraint.accept(token)

    def _report(self, token: int, logits: Tensor, own: _Weighed) -> Sample:
        total = log_of(own.blocks, own.best)
        alternatives: tuple[tuple[int, float], ...] = ()
        if self.params.logprobs:
            ids = best_ids(logits, min(self.params.logprobs, self.vocab_size))
            values = (logits[ids] - total).tolist()
            alternatives = tuple(zip(ids.tolist(), values, strict=True))
        return Sample(token, float(logits[token] - total), alternatives)


class _Weighed:
    """A row of the model's own logits, and what each of them weighs at temperature 1.

    A log-probability needs that, and a draw at temperature 1 too.
    """

    def __init__(self, logits: Tensor, best: float) -> None:
        self.best = best
        self.weights = weights_of(logits, best, 1)
        self.blocks = block_sums(self.weights)


def _ids(ids: Iterable[int]) -> Tensor:
    return torch.tensor(sorted(set(ids)), dtype=torch.int64)


def mark_ids(ids: Iterable[int] | Tensor, vocab_size: int) -> Tensor:
    """Return a (V,) bool tensor on the CPU that marks `ids`; such a tensor itself is copied."""
    if isinstance(ids, Tensor) and ids.dtype == torch.bool:
        if ids.shape != (vocab_size,):
            raise ValueError(
                f"a mask of the prompt has shape {tuple(ids.shape)}, not ({vocab_size},)"
            )
        return ids.cpu().clone()
    mask = torch.zeros(vocab_size, dtype=torch.bool)
    mask[torch.as_tensor(ids if isinstance(ids, Tensor) else list(ids), dtype=torch.int64)] = True
    return mask
