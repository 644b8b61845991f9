"""How tokens are chosen and when to stop: plain values, checked when they are given."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, Literal, cast

Looks = Literal["largest", "mass", "each"]  # which logits a choice looks at
MAX_ALTERNATIVES = 100
MOST_DRAFTS = 15
_IDS = ("stop_ids", "suppress_ids", "begin_suppress_ids", "allowed_ids")
# Of `griffin chat` and the chat page, where neither the model's files nor the user say otherwise:
# what keeps a 2B model on its way, and answers that are not cut.
CHAT = {"temperature": 0.7, "top_p": 0.95, "min_p": 0.05, "max_tokens": 4096}


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Say how tokens are chosen and when to stop; ValueError, naming the field, for a wrong value.

    temperature         divides the logits; 0 takes the most probable token (ties: the lowest id).
    top_k               keep the k most probable tokens; 0 keeps all.
    top_p               keep the fewest most probable tokens whose mass reaches p; 1 keeps all.
    min_p               keep tokens at least min_p times as probable as the best; 0 keeps all.
    repetition_penalty  positive logits of tokens in prompt or answer are divided by it, others
                        multiplied.
    presence_penalty    subtracted once from the logit of each token in the answer so far, -2 to 2.
    frequency_penalty   subtracted once for each time the token is in the answer so far, -2 to 2.
    logit_bias          id -> number added to its logit, -100 (in practice never) to 100 (always).
    suppress_ids        token ids that are never chosen, whatever their bias.
    begin_suppress_ids  the same for an answer's first token alone.
    allowed_ids         the only token ids that may be chosen, ends of the answer included; None
                        allows all.
    seed                starts the row's own random numbers; None draws a fresh one, which results
                        report.
    stop                strings that end the answer; they are not part of it. None is none, as
                        for stop_ids and logit_bias.
    stop_ids            token ids that end the answer, besides those of the model.
    min_tokens          the answer's first so many tokens neither end it, nor do stop strings in
                        their text; at most max_tokens. Where nothing else may be said it ends.
    ignore_eos          the model's own ends (EOS, the end of a turn) end nothing.
    logprobs            how many alternatives to report beside each token's log-probability; None:
                        none.
    max_tokens          the most tokens to generate, at least 1.
    draft               tokens that are guessed and read in one call, which never changes an answer:
                        0 none, N up to N of 1 to 15 whenever the text suggests so many, None as
                        many as save time, and none where tokens read together would round otherwise
                        than alone (docs/drafting.md).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    suppress_ids: tuple[int, ...] = ()
    begin_suppress_ids: tuple[int, ...] = ()
    allowed_ids: tuple[int, ...] | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    ignore_eos: bool = False
    logprobs: int | None = None
    max_tokens: int = 256
    draft: int | None = None

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
        put("min_tokens", _whole("min_tokens", self.min_tokens, 0))
        if self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens is {self.min_tokens} and max_tokens {self.max_tokens}; an answer of"
                " at least so many tokens needs room for them"
            )
        if not isinstance(self.ignore_eos, bool):
            raise ValueError(f"ignore_eos must be True or False, not {self.ignore_eos!r}")
        if self.seed is not None:
            put("seed", _whole("seed", self.seed, 0, 2**63 - 1))
        if self.draft is not None:
            put("draft", _whole("draft", self.draft, 0, MOST_DRAFTS, hint="0 is none"))
        if self.logprobs is not None:
            put("logprobs", _whole("logprobs", self.logprobs, 0, MAX_ALTERNATIVES))

        for name in ("stop", "stop_ids", "suppress_ids", "begin_suppress_ids"):
            if getattr(self, name) is None:
                put(name, ())
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        if isinstance(stop, (bytes, Mapping)) or not isinstance(stop, Iterable):
            raise ValueError(f"stop must be a string or a list of strings, not {stop!r}")
        stop = tuple(stop)
        for text in stop:
            if not isinstance(text, str) or not text:
                raise ValueError(f"stop must hold strings that are not empty, not {text!r}")
        put("stop", stop)
        for name in _IDS:
            if name == "allowed_ids" and self.allowed_ids is None:
                continue
            put(name, tuple(_whole(name, i, 0) for i in _many(name, getattr(self, name))))
        if self.allowed_ids == ():
            raise ValueError("allowed_ids is empty; name some ids, or None to allow all")
        if self.logit_bias is None:
            put("logit_bias", {})
        if not isinstance(self.logit_bias, Mapping):
            raise ValueError(f"logit_bias must map token ids to numbers, not {self.logit_bias!r}")
        bias = {
            _whole("a token id of logit_bias", i, 0): _number(f"logit_bias[{i}]", b, -100, 100)
            for i, b in self.logit_bias.items()
        }
        put("logit_bias", MappingProxyType(bias))

    @property
    def looks_at(self) -> Looks:
        """Say which logits of the model a choice looks at.

        largest: greedily, or with what keeps few of them: top_k up to 64, or min_p from 0.05 at
                 temperatures up to 1.
        mass:    a draw from more: what the small ones weigh together counts, none by itself.
        each:    any of them may be told (logprobs), changed or the only one that is allowed.
        How far choices are from those that know all logits: docs/quantization.md.
        """
        few = 0 < self.top_k <= 64 or (self.min_p >= 0.05 and self.temperature <= 1)
        penalties = self.repetition_penalty - 1, self.presence_penalty, self.frequency_penalty
        named = self.logit_bias, self.suppress_ids, self.begin_suppress_ids, self.allowed_ids
        if self.logprobs is not None or any(penalties) or any(named):
            return "each"
        return "largest" if self.temperature == 0 or few else "mass"

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SamplingParams:
        """Build parameters from plain values; ValueError for an unknown key, with the nearest."""
        known = [f.name for f in dataclasses.fields(cls)]
        for name in fields:
            if name not in known:
                near = [each for each in known if each.startswith(name)]
                near = near or difflib.get_close_matches(name, known, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise ValueError(
                    f"no sampling parameter {name!r}{hint}; there are {', '.join(known)}"
                )
        return cls(**fields)

    def replace(self, **changes: Any) -> SamplingParams:
        """Return a copy with some fields changed; ValueError for an unknown one, naming it.

        A smaller max_tokens lowers a min_tokens that was there before.
        """
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        most = changes.get("max_tokens")
        if isinstance(most, Integral) and int(most) < self.min_tokens:
            own["min_tokens"] = max(int(most), 0)
        return SamplingParams.from_dict(own | changes)

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise ValueError if a field names a token the model does not have, or suppresses all."""
        for name in ("logit_bias", *_IDS):
            for i in getattr(self, name) or ():
                if i >= vocab_size:
                    raise ValueError(
                        f"{name} names token {i}; the vocabulary has ids 0 to {vocab_size - 1}"
                    )
        never = {*self.suppress_ids, *self.begin_suppress_ids}
        if len(never) >= vocab_size or (self.allowed_ids and never.issuperset(self.allowed_ids)):
            what = "every token" if self.allowed_ids is None else "all of allowed_ids"
            names = "begin_suppress_ids" if self.begin_suppress_ids else "suppress_ids"
            raise ValueError(f"{names} names {what}; none is left to choose")


def _number(name: str, value: Any, low: float, high: float, open_low: bool = False) -> float:
    allowed = (
        f"a number {'above' if open_low else 'from'} {low} {'and at most' if open_low else 'to'}"
        f" {high}"
    )
    real = isinstance(value, Real) and not isinstance(value, bool)
    if real and low <= cast(float, value) <= high:
        number = float(value)  # within the bounds: no whole number is too large for it
        if not open_low or number > low:
            return number
    raise ValueError(f"{name} must be {allowed}, not {value!r}")


def _whole(name: str, value: Any, low: int, high: int | None = None, hint: str = "") -> int:
    if isinstance(value, Integral) and not isinstance(value, bool):
        number = int(value)
        if low <= number and (high is None or number <= high):
            return number
    allowed = (
        f"a whole number of at least {low}"
        if high is None
        else f"a whole number from {low} to {high}"
    )
    allowed += f" ({hint})" if hint else ""
    raise ValueError(f"{name} must be {allowed}, not {value!r}")


def _many(name: str, values: Any) -> tuple[Any, ...]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise ValueError(f"{name} must be a list of token ids, not {values!r}")
    return tuple(values)
