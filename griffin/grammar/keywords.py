"""Keywords of JSON schemas that are about a value itself, not about what it holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from griffin.grammar import formats, numbers
from griffin.grammar.references import joined

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_LOW, _HIGH = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
# Of the digits that numbers are to be multiples of, as whole numbers: each has as many states, of
# some 500 bytes. A million would take seconds and 270 MB.
MOST_STEPS = 1000
# Those of `say`; "type" is said after the others.
SIMPLE = (*_COUNTS, *_LOW, *_HIGH, "multipleOf", "enum", "const", "pattern", "format", "required")


class SchemaPart(NamedTuple):
    """A schema that is being rewritten: what it was, what it becomes, where it stands.

    around: names that its objects may have besides its own; None where it is not to be closed.
    names:  all that they may have; None where they may have any.
    """

    schema: Mapping[str, Any]
    made: dict[str, Any]
    place: str
    base: str
    around: frozenset[str] | None
    names: frozenset[str] | None

    def at(self, key: str) -> str:
        return joined(self.place, key)


class Holder(Protocol):
    """Who writes what is held to."""

    def pass_over(self, place: str, why: str) -> None: ...

    def add(self, part: SchemaPart, key: str, value: Any, said: str) -> None: ...

    def takes_step(self, digits: int) -> bool: ...


def say(held: Holder, part: SchemaPart, key: str, value: Any) -> None:
    """Write a keyword in the form in which it is held to."""
    if key in _COUNTS:
        _count(held, part, key, value)
    elif key in _LOW or key in _HIGH:
        _bound(held, part, key, value)
    elif key in ("enum", "const"):
        _values(held, part, key, value)
    elif key in ("pattern", "format"):
        _pattern(held, part, key, value)
    elif key == "type":
        _type(held, part, key, value)
    elif key == "required":
        if _all_strings(value):
            part.made[key] = list(dict.fromkeys(value))
        else:
            held.pass_over(part.at(key), "it is a list of names")
    elif not (numbers.is_number(value) and value > 0):
        held.pass_over(part.at(key), "it is a number above 0")
    elif held.takes_step(numbers.digits(value)):
        number = numbers.whole(value)
        part.made[key] = value if number is None else number
    else:
        held.pass_over(part.at(key), f"the digits of all come to more than {MOST_STEPS}")


def _type(held: Holder, part: SchemaPart, key: str, value: Any) -> None:
    kinds = [value] if isinstance(value, str) else value
    if _all_strings(kinds) and all(kind in TYPES for kind in kinds):
        part.made["type"] = kinds[0] if len(kinds) == 1 else kinds
    else:
        held.pass_over(part.at("type"), f"types are {', '.join(TYPES)}")


def _values(held: Holder, part: SchemaPart, key: str, value: Any) -> None:
    if key == "enum" and not isinstance(value, list):
        held.pass_over(part.at(key), "it is a list")
        return
    kinds = part.schema.get("type")
    values = value if key == "enum" else [value]
    values = [one for one in values if kinds is None or _is_of(one, kinds)]
    sayable = [one for one in values if numbers.is_sayable(one)]
    if values and not sayable:
        held.pass_over(part.at(key), "its values cannot be written to the last digit")
    else:
        held.add(part, "enum", sayable, key)


def _count(held: Holder, part: SchemaPart, key: str, value: Any) -> None:
    number = numbers.whole(value)
    if number is None or number < 0:
        held.pass_over(part.at(key), "it is a whole number of 0 or more")
    elif key == "minProperties" and number > 1 and part.names is None:
        # An additional name may come twice, and then counts once.
        held.pass_over(part.at(key), "names may repeat")
    else:
        part.made[key] = number


def _bound(held: Holder, part: SchemaPart, key: str, value: Any) -> None:
    side, strict = _LOW if key in _LOW else _HIGH
    exclusive = key == strict
    if exclusive and isinstance(value, bool):  # as of draft 4, beside its bound
        return
    if not numbers.is_number(value):
        held.pass_over(part.at(key), "it is a number")
        return
    exclusive = exclusive or part.schema.get(strict) is True
    integer = part.schema.get("type") == "integer"
    find = numbers.lowest if side == "minimum" else numbers.highest
    found = find(value, exclusive=exclusive, integer=integer)
    if found is None:
        held.pass_over(part.at(key), "floats do not hold it")
        return
    bound, exclusive = found
    made = part.made
    held.add(part, strict if exclusive else side, bound, key)
    crossed = made.get("minimum", -math.inf) > made.get("maximum", math.inf)
    if crossed and not _is_crossed(part.schema):
        held.pass_over(part.at(key), "floats hold nothing between its bounds")
        made.pop(side, None)


def _is_crossed(schema: Mapping[str, Any]) -> bool:
    """Return whether nothing fits the bounds as they are written."""
    least, most = schema.get("minimum", 0), schema.get("maximum", 0)
    return not (numbers.is_number(least) and numbers.is_number(most) and least <= most)


def _pattern(held: Holder, part: SchemaPart, key: str, value: Any) -> None:
    if not _is_of("", part.schema.get("type", "string")):
        return
    if not isinstance(value, str):
        held.pass_over(part.at(key), "it is a string")
        return
    pattern = value if key == "pattern" else formats.pattern(value)
    if pattern is None:
        held.pass_over(part.at(key), f"the formats are {', '.join(formats.FORMATS)}")
    else:
        held.add(part, "pattern", pattern, key)


def _is_of(value: Any, kinds: Any) -> bool:
    """Return whether a value is of one of some types; of any, if they are none."""
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not _all_strings(kinds) or not all(kind in TYPES for kind in kinds):
        return True
    if isinstance(value, bool) or value is None:
        return ("null" if value is None else "boolean") in kinds
    if isinstance(value, (int, float)):
        return "number" in kinds or ("integer" in kinds and numbers.whole(value) is not None)
    return {str: "string", list: "array", dict: "object"}[type(value)] in kinds


def _all_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
