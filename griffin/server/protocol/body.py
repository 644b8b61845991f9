"""A body's bytes to a Struct, or to a refusal that names the field."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from griffin.server.errors import INVALID, TOO_LARGE, UNSUPPORTED, ApiError
from griffin.server.limits import Limits
from griffin.server.protocol.bounds import IN_WORDS
from griffin.server.protocol.policy import Policy
from griffin.server.protocol.shape import Shape, extras, shape_of

B = TypeVar("B", bound=msgspec.Struct)

_decode = msgspec.json.Decoder().decode
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_WHERE = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<path>.*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.(?P<key>[^.\[]+)|\[(?P<index>\d+)\]")
_SHOWN = 40


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
    except msgspec.ValidationError as error:
        raise _explained(error, data, shape) from None


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
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} digits)"


def ignored_header(ignored: tuple[str, ...]) -> dict[str, str]:
    """Return the response header that names the fields which were passed over; none for none.

    Names are cut and cleaned: they come from the client and go into a header.
    """
    if not ignored:
        return {}
    names = [re.sub(r"[^A-Za-z0-9_.\[\]-]", "?", name[:64]) or "?" for name in ignored[:16]]
    more = [f"and {len(ignored) - 16} more"] if len(ignored) > 16 else []
    return {"x-griffin-ignored": ", ".join([*names, *more])}


def _json(body: bytes, kind: type[msgspec.Struct], limits: Limits) -> Any:
    if len(body) > limits.max_body_bytes:
        raise too_large(len(body), limits)
    if not body.strip():
        raise ApiError(INVALID, "the body is empty; send a JSON object")
    cap = limits.max_json_values
    # First as if strings were not there: cheap, and enough for all but huge bodies.
    if _values(body) > cap and (_strings(body) > cap or _values(_STRINGS.sub(b"", body)) > cap):
        raise ApiError(
            TOO_LARGE,
            f"the body holds more than {cap} JSON values (lists and objects count four times); send"
            f" less at once (a server takes more with {limits.flag('max_json_values')})",
        )
    try:
        return _decode(body)
    except RecursionError:
        raise ApiError(INVALID, "the body's JSON is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ApiError(
            INVALID, f"the body is not UTF-8: byte {error.start} of a string in it"
        ) from None
    except msgspec.ValidationError:
        raise _out_of_range(body, kind) from None
    except msgspec.DecodeError as error:
        text = str(error)
        if text == "Input data was truncated":  # msgspec says so of a lone surrogate, too
            text = "it ends too early, or a string in it holds half a surrogate pair"
        raise ApiError(INVALID, f"the body is not valid JSON: {text}") from None


def _out_of_range(body: bytes, kind: type[msgspec.Struct]) -> ApiError:
    """Blame a number such as 1e999: read again as what the body should be, msgspec says where it
    stands."""
    where = None
    try:
        msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        found = _WHERE.match(str(error))
        if found is not None and "out of range" in found["what"]:
            where = found["path"]
    param = (where or "").replace("[...]", "").removeprefix(".") or None
    return ApiError(INVALID, f"{param or 'a number in the body'} is out of range", param)


def too_large(length: int, limits: Limits) -> ApiError:
    """Make the refusal of a body that is, or says it is, `length` bytes long."""
    return ApiError(
        TOO_LARGE,
        f"the body has {length} bytes; this server accepts {limits.max_body_bytes} "
        f"(raise it with {limits.flag('max_body_bytes')})",
    )


def _values(body: bytes) -> int:
    """Weigh a body's JSON: an empty object takes 64 bytes of memory for two in the body."""
    return body.count(b",") + 4 * (body.count(b"[") + body.count(b"{"))


def _strings(body: bytes) -> int:
    """Count a body's strings; some that end in a backslash are missed."""
    return (body.count(b'"') - body.count(b'\\"')) // 2


def _explained(error: msgspec.ValidationError, data: Any, shape: Shape) -> ApiError:
    """Turn msgspec's message into one with the field's path and what stood there."""
    found = _WHERE.match(str(error))
    assert found is not None
    what, path = found["what"].replace("`", ""), found["path"] or ""
    inside, path = path.endswith("[...]"), path.replace("[...]", "")
    value: Any = data
    known: Shape | None = shape
    for step in _STEP.finditer(path):
        if step["index"] is not None:
            value, known = value[int(step["index"])], known.items if known else None
        else:
            value = value[step["key"]]
            known = (known.fields or {}).get(step["key"]) if known else None
    param = path.removeprefix(".")
    if missing := re.match(r"Object missing required field (\w+)", what):
        param = f"{param}.{missing[1]}" if param else missing[1]
        return ApiError(INVALID, f"{param} is missing", param)
    if inside:
        return ApiError(INVALID, f"a value in {param} is wrong: {what}", param)
    if known is not None and known.choices and isinstance(value, str):
        what = f"allowed are {', '.join(known.choices)}"
    elif words := next((IN_WORDS[p] for p in IN_WORDS if repr(p)[1:-1] in what), None):
        what = f"expected {words}"
    else:
        what = re.sub(r", got .*", "", what, flags=re.DOTALL).replace("Expected", "expected", 1)
    return ApiError(INVALID, f"{param or 'the body'} is {show(value)}; {what}", param or None)
