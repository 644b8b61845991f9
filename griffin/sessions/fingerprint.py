"""Which model a state belongs to: a state is numbers without meaning for any other."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from griffin.model import GriffinConfig
from griffin.sessions.errors import StateMismatch

FORMAT_VERSION = "1"  # of everything this room writes about a state; a change of meaning changes it
_DTYPES = ("float32", "bfloat16", "float16", "float64")
_LONGEST = 200


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Name everything that a state's meaning depends on. Each part is a digest or a plain word.

    config:       `config_digest(config)`.
    weights:      digest of the weight files.
    dtype:        the type the model computes in, "bfloat16" say: of convolution inputs, keys and
                  values.
    quantization: "int8", "int4", ...; "none".
    adapter:      digest of an adapter; "none".
    tokenizer:    digest of the tokenizer's files.
    template:     digest of the chat template; "none".
    format:       version of what this room writes.
    tuned:        the tuned state that stands for BOS: its positions, a hyphen and its digest;
                  "none".
    Raises ValueError for an empty or overlong part and for a dtype no model computes in.
    """

    config: str
    weights: str
    dtype: str
    quantization: str = "none"
    adapter: str = "none"
    tokenizer: str = "none"
    template: str = "none"
    format: str = FORMAT_VERSION
    tuned: str = "none"

    def __post_init__(self) -> None:
        for part, value in dataclasses.asdict(self).items():
            if (
                not isinstance(value, str)
                or not 0 < len(value) <= _LONGEST
                or not value.isprintable()
            ):
                raise ValueError(
                    f"the fingerprint's {part} must be a printable string of 1 to {_LONGEST}"
                    f" characters, not {value!r:.100}"
                )
        if self.dtype not in _DTYPES:
            raise ValueError(
                f"the fingerprint's dtype is {self.dtype!r}; allowed are {', '.join(_DTYPES)}"
            )
        if self.tuned != "none" and not re.fullmatch(r"[1-9][0-9]{0,8}-[0-9a-f]+", self.tuned):
            raise ValueError(
                "the fingerprint's tuned must be positions, a hyphen and a digest, not"
                f" {self.tuned!r:.100}"
            )

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of convolution inputs, keys and values."""
        return getattr(torch, self.dtype)

    @property
    def digest(self) -> str:
        """One string for all parts, for those who need a key."""
        return json_digest(self.to_dict())

    def position(self, before: int, more: int) -> int:
        """Return where a state stands that stood at position `before` and read `more` tokens.

        Of a tuned state of n positions the last stands for the first token.
        """
        ahead = 0 if self.tuned == "none" else int(self.tuned.partition("-")[0]) - 1
        return before + more + (ahead if more and not before else 0)

    def differences(self, other: Fingerprint) -> dict[str, tuple[str, str]]:
        """Return the parts that differ, {part: (this one's, the other's)}."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return {part: (mine[part], theirs[part]) for part in mine if mine[part] != theirs[part]}

    def require(self, given: Fingerprint, what: str) -> None:
        """Raise StateMismatch unless the given model's fingerprint is this one, `what`'s own."""
        if different := self.differences(given):
            listed = "; ".join(
                f"{part}: {_short(own)} there, {_short(now)} here"
                for part, (own, now) in different.items()
            )
            raise StateMismatch(
                f"{what} belongs to another model ({listed}); load the model it was made with, or"
                " begin anew"
            )

    def to_dict(self) -> dict[str, str]:
        """Return the parts as plain strings, the inverse of `from_dict`.

        Without a tuned state it says nothing of one, as before there were any (January 2027).
        """
        parts = dataclasses.asdict(self)
        return {name: part for name, part in parts.items() if (name, part) != ("tuned", "none")}

    @classmethod
    def from_dict(cls, parts: Mapping[str, str]) -> Fingerprint:
        """Build one from plain strings; an unknown or missing part is a named ValueError."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unlike := sorted(known ^ {*parts, "tuned"}):
            raise ValueError(
                f"a fingerprint has the parts {sorted(known)}; {unlike} are missing or unknown"
            )
        return cls(**parts)


def config_digest(config: GriffinConfig) -> str:
    """Return the digest that `Fingerprint.config` holds."""
    return json_digest(config.to_dict())


def json_digest(value: Any) -> str:
    """Return a digest of plain values, whatever the order of their keys: 32 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _short(part: str) -> str:
    return part if len(part) <= 16 else f"{part[:12]}..."
