"""A body's bytes to a Struct, or to a refusal that names the field."""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from griffin.server.errors import INVALID, TOO_LARGE, UNSUPPORTED, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol.fault import ABSENT, Fault, find_fault
from griffin.server.protocol.policy import Policy
from griffin.server.protocol.shape import extras, shape_of
from griffin.server.protocol.whole import whole_numbers

B = TypeVar("B", bound=msgspec.Struct)

_decode = msgspec.json.Decoder().decode
_SHOWN = 40
_MOST_DIGITS = 4300  # of a whole number; Python, too, reads no longer one
_MOST_LEVELS = 500
_AT_ONCE = 4096  # brackets
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def read_body(
    body: bytes, kind: type[B], policy: Policy, limits: Limits
) -> tuple[B, tuple[str, ...]]:
    """Decode a request's body.

    Returns the Struct, and the fields that were passed over and are in no table: the answer must
    name them (`ignored_header`). Raises ApiError: 413 for a body over the limits, 400 with `param`
    for everything else, NaN, infinity and lone surrogates included.
    """
    data = _json(body, kind, limits)
    shape = shape_of(kind)
    if not isinstance(data, dict):
        raise ApiError(INVALID, f"the body is {show(data)}; send a JSON object")
    ignored: dict[str, None] = {}
    for extra in extras(data, shape):
        refusal = policy.refused.get(extra.place)
        if refusal is None:
            if extra.place not in policy.ignored:
                ignored[extra.place] = None
        elif extra.value is not None and not refusal.is_harmless(extra.value):
            raise ApiError(UNSUPPORTED, f"{extra.path} is not supported: {refusal.why}", extra.path)
    try:
        return msgspec.convert(data, kind), tuple(ignored)
    except msgspec.ValidationError:
        data = whole_numbers(data, inspect.type_info(kind))
    try:
        return msgspec.convert(data, kind), tuple(ignored)
    except msgspec.ValidationError:
        fault = find_fault(data, kind)
        assert fault is not None
        raise _explained(fault) from None


def show(value: Any) -> str:
    """Describe a JSON value in a few words, for a message."""
    if isinstance(value, str):
        return (
            repr(value)
            if len(value) <= _SHOWN
            else f"{value[:_SHOWN]!r}... ({len(value)} characters)"
        )
    if isinstance(value, (bool, type(None))):
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, float) and math.isinf(value):
        return "a number out of range"
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} digits)"


def ignored_header(ignored: tuple[str, ...]) -> dict[str, str]:
    """Return the response header that names the fields which were passed over; none for none.

    Names are cut and cleaned: they come from the client and go into a header.
    """
    if not ignored:
        return {}
    names = [re.sub(r"[^A-Za-z0-9_.$\[\]-]", "?", name[:160]) or "?" for name in ignored[:16]]
    more = [f"and {len(ignored) - 16} more"] if len(ignored) > 16 else []
    return {"x-griffin-ignored": ", ".join([*names, *more])}


def _json(body: bytes, kind: type[msgspec.Struct], limits: Limits) -> Any:
    if len(body) > limits.max_body_bytes:
        raise too_large(len(body), limits)
    if not body.strip():
        raise ApiError(INVALID, "the body is empty; send a JSON object")
    cap = limits.max_json_values
    # First as if strings were not there: cheap, and enough for all but huge bodies.
    if values(body) > cap and (_strings(body) > cap or values(_without_strings(body)) > cap):
        raise ApiError(
            TOO_LARGE,
            f"the body holds more than {cap} JSON values (lists and objects count four times); send"
            f" less at once (a server takes more with {limits.flag('max_json_values')})",
        )
    # Readers of JSON take as many levels as their stack does, each version of each its own number.
    deep = body.count(b"[") + body.count(b"{") > _MOST_LEVELS
    if deep and _levels(_without_strings(body)) > _MOST_LEVELS:
        raise ApiError(INVALID, f"the body's JSON has more than {_MOST_LEVELS} levels")
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(body, kind, isinstance(error, msgspec.ValidationError)) from None


def _unreadable(body: bytes, kind: type[msgspec.Struct], out_of_range: bool) -> ApiError:
    """Say why msgspec does not read a body: read again by Python's own parser, which tells where.

    out_of_range: it is JSON, but a number in it is not to be held, such as 1e999.
    """
    try:
        data = json.loads(body.decode(), parse_int=_whole, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        return ApiError(INVALID, f"the body is not UTF-8 at byte {error.start}")
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        return ApiError(INVALID, f"the body is not valid JSON at {where}")
    except ApiError as error:
        return error
    if not out_of_range:  # the one thing that Python's parser lets through
        return ApiError(
            INVALID, "the body is not valid JSON: a string in it holds half a surrogate pair"
        )
    if (fault := find_fault(data, kind)) is not None:
        return _explained(fault)
    return ApiError(INVALID, "a number in the body is out of range")


def _whole(digits: str) -> float:
    return int(digits) if len(digits) <= _MOST_DIGITS else math.inf


def _no_number(name: str) -> None:
    raise ApiError(INVALID, f"the body is not valid JSON: it holds {name}; send a number or null")


def too_large(length: int, limits: Limits) -> ApiError:
    """Make the refusal of a body that is, or says it is, `length` bytes long."""
    return ApiError(
        TOO_LARGE,
        f"the body has {length} bytes; this server accepts {limits.max_body_bytes} "
        f"(raise it with {limits.flag('max_body_bytes')})",
    )


def values(body: bytes) -> int:
    """Weigh a body's JSON: an empty object takes 64 bytes of memory for two in the body."""
    return body.count(b",") + 4 * (body.count(b"[") + body.count(b"{"))


def _without_strings(body: bytes) -> bytes:
    """Return a body's JSON without its strings. In few, short calls: each keeps others waiting."""
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(plain.split(b'"')[::2])


def _levels(body: bytes) -> int:
    """Return how deep lists and objects lie in each other; of a body without its strings."""
    brackets = body.translate(None, _NO_BRACKETS)
    level = most = 0
    for start in range(0, len(brackets), _AT_ONCE):
        steps = map(_STEPS.__getitem__, brackets[start : start + _AT_ONCE])
        levels = list(accumulate(steps, initial=level))
        level, most = levels[-1], max(most, *levels)
    return most


def _strings(body: bytes) -> int:
    """Count a body's strings; some that end in a backslash are missed."""
    return (body.count(b'"') - body.count(b'\\"')) // 2


def _explained(fault: Fault) -> ApiError:
    param, what = fault.path or None, f"{fault.inside}{fault.path or 'the body'}"
    if fault.value is ABSENT:
        return ApiError(INVALID, f"{what} is missing", param)
    return ApiError(INVALID, f"{what} is {show(fault.value)}; expected {fault.expected}", param)
