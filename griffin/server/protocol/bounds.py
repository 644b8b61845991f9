"""The types that bodies are made of, each with its bounds, and checks against the Limits."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, TypeVar

from msgspec import Meta

from griffin.server.errors import INVALID, NO_MODEL, ApiError
from griffin.server.limits import Limits

V = TypeVar("V")

# `(?!\n)` because Python's `$` also stands before a last line break.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}(?!\n)$"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

FUNCTION_PATTERN = r"^[A-Za-z0-9_-]{1,64}(?!\n)$"
# What a message says in place of a pattern.
IN_WORDS = {
    NAME_PATTERN: (
        "a letter or digit and after it at most 127 letters, digits, dots, dashes and underscores"
    ),
    FUNCTION_PATTERN: "1 to 64 letters, digits, dashes and underscores",
}

Name = Annotated[
    str, Meta(pattern=NAME_PATTERN, description="A session's or state's name; never a path.")
]
Title = Annotated[str, Meta(max_length=256)]
ModelName = Annotated[str, Meta(min_length=1, max_length=256)]
Id = Annotated[str, Meta(min_length=1, max_length=128)]
CacheKey = Annotated[str, Meta(max_length=1024)]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
    Meta(max_length=16),
]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
CountOrZero = Annotated[int, Meta(ge=0, le=2**31 - 1)]
TurnNumber = Annotated[int, Meta(ge=1, le=2**31 - 1)]  # as GET /v1/sessions/{name}/turns lists them


def check_most(number: int, what: str, limits: Limits, name: str, param: str) -> None:
    """Raise ApiError if `number` is above the limit of that name. what: "n is 99", "stop has 40
    strings"."""
    most = getattr(limits, name)
    if number > most:
        raise ApiError(
            INVALID,
            f"{what}; this server takes at most {most} (raise it with {limits.flag(name)})",
            param,
        )


def check_ids(ids: Collection[int], limits: Limits, param: str) -> None:
    """Raise ApiError naming the first id that the model does not have. The ids are not negative."""
    if ids and max(ids) >= limits.vocab_size:
        at, bad = next((at, id) for at, id in enumerate(ids) if id >= limits.vocab_size)
        raise ApiError(
            INVALID,
            f"{param}[{at}] is token {bad}; the vocabulary has ids 0 to {limits.vocab_size - 1}",
            f"{param}[{at}]",
        )


def needed(value: V | None, param: str) -> V:
    """Return a value; ApiError for one that is not there. param: its path."""
    if value is None:
        raise ApiError(INVALID, f"{param} is missing", param)
    return value


def is_name(text: str) -> bool:
    """Return whether a text can be a session's or a state's name."""
    return _NAME.fullmatch(text) is not None


def check_name(text: str, param: str) -> str:
    """Return a name from a path or header; ApiError if it cannot be one."""
    if not is_name(text):
        raise ApiError(
            INVALID,
            f"{param} is no name; expected {IN_WORDS[NAME_PATTERN]}",
            param,
        )
    return text


def check_model(name: str | None, served: Collection[str]) -> str:
    """Return the model to use; the first one served if the request named none.

    Raises ApiError (404) for one that is not served.
    """
    if name is None:
        return next(iter(served))
    if name not in served:
        raise ApiError(
            NO_MODEL,
            f"there is no model {name[:64]!r} here; GET /v1/models lists {', '.join(served)}",
            "model",
        )
    return name
