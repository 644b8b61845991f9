"""How the next token is chosen: the parameters, and one sampler a row with its own random numbers.

The order is penalties, bias, constraint, temperature, min_p, top_k, top_p, draw. Each filter sees
what the one before it left over. Ties are always broken towards the lowest id, so `top_k=1` is
exactly greedy.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

MAX_ALTERNATIVES = 100
_FEW = 1024  # tokens that top_p sorts; where its last one is among more, they are halved first
_BLOCK = 512  # tokens whose mass is summed first, when one is drawn


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Say how tokens are chosen and when to stop. Every wrong value is a ValueError that names the
    field.

    temperature         divides the logits; 0 takes the most probable token (ties: the lowest id).
    top_k               keep the k most probable tokens; 0 keeps all.
    top_p               keep the fewest most probable tokens whose mass reaches p; 1 keeps all.
    min_p               keep tokens at least min_p times as probable as the best; 0 keeps all.
    repetition_penalty  positive logits of tokens in prompt or answer are divided by it, others
    multiplied. presence_penalty    subtracted once from the logit of each token in the answer so
    far, -2 to 2. frequency_penalty   subtracted once for each time the token is in the answer so
    far, -2 to 2. logit_bias          id -> number added to its logit, -100 (in practice never) to
    100 (always). seed                starts the row's own random numbers; None draws a fresh one,
    which results report. stop                strings that end the answer; they are not part of it.
    stop_ids            token ids that end the answer, besides those of the model.
    logprobs            how many alternatives to report beside each token's log-probability; None:
    none. max_tokens          the most tokens to generate, at least 1.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    max_tokens: int = 256

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("temperature", _number("temperature", self.temperature, 0, 100))
        put("top_k", _whole("top_k", self.top_k, 0, hint="0 keeps all"))
        put("top_p", _number("top_p", self.top_p, 0, 1, open_low=True))
        put("min_p", _number("min_p", self.min_p, 0, 1))
        put(
            "repetition_penalty",
            _number("repetition_penalty", self.repetition_penalty, 0, 100, open_low=True),
        )
        put("presence_penalty", _number("presence_penalty", self.presence_penalty, -2, 2))
        put("frequency_penalty", _number("frequency_penalty", self.frequency_penalty, -2, 2))
        put("max_tokens", _whole("max_tokens", self.max_tokens, 1))
        if self.seed is not None:
            put("seed", _whole("seed", self.seed, 0, 2**63 - 1))
        if self.logprobs is not None:
            put("logprobs", _whole("logprobs", self.logprobs, 0, MAX_ALTERNATIVES))

        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        for text in stop:
            if not isinstance(text, str) or not text:
                raise ValueError(f"stop must hold strings that are not empty, not {text!r}")
        put("stop", stop)
        put("stop_ids", tuple(_whole("stop_ids", i, 0) for i in _many("stop_ids", self.stop_ids)))
        if not isinstance(self.logit_bias, Mapping):
            raise ValueError(f"logit_bias must map token ids to numbers, not {self.logit_bias!r}")
        bias = {
            _whole("a token id of logit_bias", i, 0): _number(f"logit_bias[{i}]", b, -100, 100)
            for i, b in self.logit_bias.items()
        }
        put("logit_bias", MappingProxyType(bias))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SamplingParams:
        """Build parameters from plain values; an unknown key is a ValueError with the nearest known
        one."""
        known = [f.name for f in dataclasses.fields(cls)]
        for name in fields:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise ValueError(
                    f"no sampling parameter {name!r}{hint}; there are {', '.join(known)}"
                )
        return cls(**fields)

    def replace(self, **changes: Any) -> SamplingParams:
        """Return a copy with some fields changed; an unknown field is a ValueError that names
        it."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return SamplingParams.from_dict(own | changes)

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise ValueError if `logit_bias` or `stop_ids` name a token the model does not have."""
        for name, ids in (("logit_bias", self.logit_bias), ("stop_ids", self.stop_ids)):
            for i in ids:
                if i >= vocab_size:
                    raise ValueError(
                        f"{name} names token {i}; the vocabulary has ids 0 to {vocab_size - 1}"
                    )


class Sample(NamedTuple):
    """A chosen token: its id, its log-probability, and the most probable tokens (id,
    log-probability)."""

    id: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...]


class ConstraintError(ValueError):
    """An answer that cannot go on as its constraint demands."""


class Constraint(Protocol):
    """What one answer may say, token by token. It remembers what was said, so each row has one of
    its own.

    Whatever it raises ends that row, and no other.
    """

    def allowed(self) -> Tensor | None:
        """Mark the ids that may come next, (V,) bool; None allows all."""
        ...

    def accept(self, id: int) -> bool:
        """Take the id that was chosen, one of those allowed; return whether the answer is over with
        it."""
        ...


class Sampler:
    """Choose the tokens of one row, remembering what it chose.

    params:     how to choose.
    vocab_size: V, the length of every logits row.
    prompt_ids: the ids of the prompt, or a (V,) bool tensor that marks them; only the repetition
                penalty looks at them. Memory is bounded by V whatever the length of prompt and
                answer.
    constraint: what the row may say; anything if omitted.

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
    ) -> None:
        params.check_vocabulary(vocab_size)
        self.params = params
        self.vocab_size = vocab_size
        self.seed = secrets.randbits(63) if params.seed is None else params.seed
        self.finished = False
        self._constraint = constraint
        self._generator = torch.Generator().manual_seed(self.seed)
        self._counts: Tensor | None = None
        self._prompt: Tensor | None = None
        if params.repetition_penalty != 1 or params.presence_penalty or params.frequency_penalty:
            self._counts = torch.zeros(vocab_size, dtype=torch.int32)
        if params.repetition_penalty != 1:
            self._prompt = mark_ids(prompt_ids, vocab_size)
        self._bias_ids = torch.tensor(list(params.logit_bias), dtype=torch.int64)
        self._bias = torch.tensor(list(params.logit_bias.values()), dtype=torch.float32)

    def sample(self, logits: Tensor) -> Sample:
        """Choose the next token from a row of logits and remember it.

        logits: (V,) float32, left as it is. Log-probabilities are those of the model's own
                distribution,
        log_softmax(logits), before penalties, bias, constraint, temperature and filters.
        Raises FloatingPointError if the row holds NaN or nothing finite, ConstraintError if its
        constraint allows no token, and what the constraint itself raises.
        """
        if logits.shape != (self.vocab_size,):
            raise ValueError(
                f"logits have shape {tuple(logits.shape)}; this row needs ({self.vocab_size},)"
            )
        logits = logits.detach().float()
        best = float(logits.max())
        if not math.isfinite(best):
            raise FloatingPointError(f"the model's logits are not finite (their maximum is {best})")
        shaped = self._constrained(self._shape(logits))
        token = int(shaped.argmax()) if self.params.temperature == 0 else self._draw(shaped)
        if self._counts is not None:
            self._counts[token] += 1
        if self._constraint is not None:
            self.finished = self._constraint.accept(token)
        return self._report(token, logits)

    def _shape(self, logits: Tensor) -> Tensor:
        """Return the logits after penalties and bias."""
        params = self.params
        if self._counts is not None:
            counts = self._counts.to(logits.device)
            if self._prompt is not None:
                seen = (counts > 0) | self._prompt.to(logits.device)
                penalty = params.repetition_penalty
                scaled = torch.where(logits > 0, logits / penalty, logits * penalty)
                logits = torch.where(seen, scaled, logits)
            logits = (
                logits
                - params.frequency_penalty * counts
                - params.presence_penalty * (counts > 0).float()
            )
        if len(self._bias_ids):
            where = self._bias_ids.to(logits.device)
            logits = logits.index_add(0, where, self._bias.to(logits.device))
        return logits

    def _constrained(self, logits: Tensor) -> Tensor:
        """Return the logits with minus infinity for what the constraint does not allow."""
        mask = None if self._constraint is None else self._constraint.allowed()
        if mask is None:
            return logits
        if mask.shape != (self.vocab_size,):
            raise ValueError(
                f"the constraint marks {tuple(mask.shape)} ids; this row chooses among"
                f" {self.vocab_size}"
            )
        logits = torch.where(mask.to(logits.device), logits, -torch.inf)
        if float(logits.max()) == -math.inf:
            raise ConstraintError("the constraint allows no token that the model can choose here")
        return logits

    def _draw(self, logits: Tensor) -> int:
        ids = support(logits, self.params)
        weights = _weights(
            logits if ids is None else logits[ids], logits.max(), self.params.temperature
        )
        u = torch.rand((), dtype=torch.float64, generator=self._generator).item()
        place = _pick(weights, u)
        return place if ids is None else int(ids[place])

    def _report(self, token: int, logits: Tensor) -> Sample:
        total = logits.logsumexp(0)
        alternatives: tuple[tuple[int, float], ...] = ()
        if self.params.logprobs:
            ids = best_ids(logits, min(self.params.logprobs, self.vocab_size))
            values = (logits[ids] - total).tolist()
            alternatives = tuple(zip(ids.tolist(), values, strict=True))
        return Sample(token, float(logits[token] - total), alternatives)


def mark_ids(ids: Iterable[int] | Tensor, vocab_size: int) -> Tensor:
    """Return a (V,) bool tensor on the CPU that marks `ids`; one that is already such a tensor is
    copied."""
    if isinstance(ids, Tensor) and ids.dtype == torch.bool:
        if ids.shape != (vocab_size,):
            raise ValueError(
                f"a mask of the prompt has shape {tuple(ids.shape)}, not ({vocab_size},)"
            )
        return ids.cpu().clone()
    mask = torch.zeros(vocab_size, dtype=torch.bool)
    mask[torch.as_tensor(ids if isinstance(ids, Tensor) else list(ids), dtype=torch.int64)] = True
    return mask


def support(logits: Tensor, params: SamplingParams) -> Tensor | None:
    """Return the ids that may be drawn, in their order: min_p, then top_k, then top_p. None: all of
    them.

    logits: (V,) float32, after penalties, bias and constraint, before the temperature. The best
            token is
    always kept.
    """
    ids: Tensor | None = None
    if 0 < params.top_k < len(logits):
        ids = _best(logits, params.top_k)
    best = logits.max()
    if params.min_p:
        enough = best.double() + params.temperature * math.log(params.min_p)
        places = ((logits if ids is None else logits[ids]) >= enough).nonzero().squeeze(1)
        ids = places if ids is None else ids[places]
    if params.top_p < 1:
        places = _nucleus(logits if ids is None else logits[ids], best, params)
        ids = places if ids is None else ids[places]
    return ids


def _nucleus(logits: Tensor, best: Tensor, params: SamplingParams) -> Tensor:
    """Return the places of the fewest most probable tokens whose mass reaches top_p, in their
    order."""
    weights = _weights(logits, best, params.temperature)
    total = float(weights.double().sum())
    goal = params.top_p * total
    # Those lighter than this have less than 1 - top_p of the mass together: the nucleus is among
    # the others.
    places = (weights >= (total - goal) / len(weights)).nonzero().squeeze(1)
    some = logits[places]
    # Where the last of the nucleus is; mass and count of those above that.
    near, above, before = some, 0.0, 0
    while len(near) > _FEW:
        upper = near > (near.min() + near.max()) / 2
        mass = float(_weights(near[upper], best, params.temperature).double().sum())
        count = int(upper.sum())
        if above + mass >= goal:
            near = near[upper]
        elif count:
            near, above, before = near[~upper], above + mass, before + count
        else:
            break  # they are all equal
    near = near.sort(descending=True).values
    mass = _weights(near, best, params.temperature).double().cumsum(0) + above
    last = int(torch.searchsorted(mass, goal))
    return places[_best(some, min(before + last + 1, len(some)))]


def _weights(logits: Tensor, best: Tensor, temperature: float) -> Tensor:
    """Return the probabilities of logits (n,), up to a common factor: that of `best` is 1."""
    # Taking the maximum away first keeps a tiny temperature from overflowing, this bound from
    # dividing by 0.
    return (logits - best).div_(max(temperature, 1e-30)).exp_()


def _pick(weights: Tensor, u: float) -> int:
    """Return the first place at which the weights (n,) so far exceed the share u, below 1, of them
    all.

    Sums are in float64, of blocks first: of a large vocabulary only one block is looked at closely.
    """
    whole = len(weights) - len(weights) % _BLOCK
    rest = weights[whole:].sum(0, keepdim=True)
    mass = torch.cat([weights[:whole].view(-1, _BLOCK).sum(1), rest]).double().cumsum(0)
    goal = mass[-1] * u
    block = _first_above(mass, goal)
    start = block * _BLOCK
    within = weights[start : start + _BLOCK].double().cumsum(0)
    return start + _first_above(within, goal - mass[block - 1] if block else goal)


def _first_above(mass: Tensor, goal: Tensor) -> int:
    """Return where a growing mass first exceeds a goal, so that what is there has mass of its
    own."""
    place = int(torch.searchsorted(mass, goal, right=True))
    # The goal was so near the whole mass that it was rounded up to it, or beyond.
    return place if place < len(mass) else int(torch.searchsorted(mass, mass[-1]))


def best_ids(values: Tensor, n: int) -> Tensor:
    """Return the ids of the n largest of values (V,), largest first, the lower id first among
    equals."""
    ids = _best(values, n)
    return ids[values[ids].argsort(descending=True, stable=True)]


def _best(values: Tensor, n: int) -> Tensor:
    """Return the places of the n largest of values (V,), in their order; among equals the lowest
    win."""
    least = values.topk(n).values[-1]
    places = (values >= least).nonzero().squeeze(1)
    if surplus := len(places) - n:
        equal = (values[places] == least).nonzero().squeeze(1)
        wanted = torch.ones_like(places, dtype=torch.bool)
        wanted[equal[-surplus:]] = False
        places = places[wanted]
    return places


def _number(name: str, value: Any, low: float, high: float, open_low: bool = False) -> float:
    allowed = (
        f"a number {'above' if open_low else 'from'} {low} {'and at most' if open_low else 'to'}"
        f" {high}"
    )
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{name} must be {allowed}, not {value!r}")
    number = float(value)
    if not low <= number <= high or (open_low and number == low):
        raise ValueError(f"{name} must be {allowed}, not {value!r}")
    return number


def _whole(name: str, value: Any, low: int, high: int | None = None, hint: str = "") -> int:
    allowed = (
        f"a whole number of at least {low}"
        if high is None
        else f"a whole number from {low} to {high}"
    )
    allowed += f" ({hint})" if hint else ""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError(f"{name} must be {allowed}, not {value!r}")
    number = int(value)
    if number < low or (high is not None and number > high):
        raise ValueError(f"{name} must be {allowed}, not {value!r}")
    return number


def _many(name: str, values: Any) -> tuple[Any, ...]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise ValueError(f"{name} must be a list of token ids, not {values!r}")
    return tuple(values)
