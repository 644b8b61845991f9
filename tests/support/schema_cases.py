"""JSON schemas as clients send them, and worse ones, drawn by a seed; and answers under them."""

from __future__ import annotations

import json
import random
from typing import Any

from griffin.grammar import CompiledGrammar
from griffin.grammar.formats import FORMATS
from griffin.text import Tokenizer

NAMES = ("a", "b", "ab", "kind", 'q"', "é", "x/y", "\\", "\n", "\u0001", "$ref", "type", "")
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -3, 2.5, 1e22, 2**53 + 1, 2**63 - 1, 2**70, "", "a", "ab", "é"),
    *('"', "\u0001", "\x7f", "\n", [], [1], {}, {"a": 1}, "/"),
)
BOUNDS = (0, 1, -1, 3, 2.5, -0.5, 10, 3.0, 2**53, 2**53 + 1, 2**60 + 1, -(2**63), 2**63 - 1, 1e300)
PATTERNS = ("^a", "b$", "^[a-c]{1,3}$", "^(?=a)b", "x", "^é?$", "(", r"\d", r"^\w+$", "^a|b$")
STRANGE = ("path", "password", "binary", "base64", "cuid", "ipvanyaddress", "regex", 3)
UNHELD: tuple[dict[str, Any], ...] = (
    *({"uniqueItems": True}, {"not": {"type": "string"}}, {"contains": {"const": 1}}),
    *({"propertyNames": {"type": "string"}}, {"propertyNames": {"minLength": 2}}),
    *({"propertyNames": {"enum": ["a", "b"]}}, {"propertyNames": {"pattern": "^a"}}),
    *(
        {"if": {"required": ["a"]}, "then": {"required": ["b"]}},
        {"dependentRequired": {"a": ["b"]}},
    ),
    *({"unevaluatedProperties": False}, {"unevaluatedItems": False}, {"minProperties": 2}),
    *({"maxProperties": 1}, {"$ref": "https://example.org/s.json"}, {"$ref": "#/$defs/none"}),
    *({"type": "any"}, {"type": ["string", "any"]}, {"nullable": True}, {"$dynamicRef": "#x"}),
    *({"dependentSchemas": {"a": {"required": ["b"]}}}, {"minProperties": 1}),
)


def draw_schema(chance: random.Random, depth: int = 3, defs: int = 2) -> dict[str, Any]:
    """Draw a schema, with definitions that it may refer to."""
    schema = _schema(chance, depth)
    schema = schema if isinstance(schema, dict) else {}
    made = {f"D{n}": _schema(chance, depth - 1) for n in range(defs)}
    return {**schema, "$defs": made}


def _schema(chance: random.Random, depth: int) -> Any:
    if chance.random() < 0.04:
        return chance.choice([True, False, {}])
    kinds = [_object, _object, _array, _one_of, _all_of, _reference] if depth > 0 else []
    made = chance.choice([_number, _string, _values, _plain, *kinds])(chance, depth)
    if chance.random() < 0.12:
        made = {**made, **chance.choice(UNHELD)}
    if chance.random() < 0.1:
        made = {**made, "title": "t", "default": None, "examples": [1]}
    return made


def _plain(chance: random.Random, depth: int) -> dict[str, Any]:
    kinds = ["null", "boolean", "string", "integer", "number", "object", "array"]
    return {"type": chance.choice([chance.choice(kinds), chance.sample(kinds, 2)])}


def _number(chance: random.Random, depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {"type": chance.choice(["integer", "number"])}
    for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        if chance.random() < 0.35:
            made[key] = chance.choice(BOUNDS)
    if chance.random() < 0.2:
        made["multipleOf"] = chance.choice([1, 2, 3.0, 0.5, 0.07, 10**12])
    return made


def _string(chance: random.Random, depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "string"}
    if chance.random() < 0.3:
        made["minLength"] = chance.choice([0, 1, 2.0])
    if chance.random() < 0.3:
        made["maxLength"] = chance.choice([0, 2, 5.0])
    if chance.random() < 0.2:
        made["pattern"] = chance.choice(PATTERNS)
    if chance.random() < 0.3:
        made["format"] = chance.choice([*FORMATS, *STRANGE])
    return made


def _values(chance: random.Random, depth: int) -> dict[str, Any]:
    if chance.random() < 0.4:
        return {"const": chance.choice(VALUES)}
    made: dict[str, Any] = {"enum": chance.sample(VALUES, chance.randint(1, 5))}
    return {**made, **_plain(chance, 0)} if chance.random() < 0.3 else made


def _object(chance: random.Random, depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object"} if chance.random() < 0.8 else {}
    names = chance.sample(NAMES, chance.randint(0, 3))
    if names or chance.random() < 0.5:
        made["properties"] = {name: _schema(chance, depth - 1) for name in names}
    if chance.random() < 0.6:
        made["required"] = [name for name in names if chance.random() < 0.5]
        if chance.random() < 0.1:
            made["required"].append(chance.choice(NAMES))
    if chance.random() < 0.3:
        made["additionalProperties"] = chance.choice([True, False, {"type": "integer"}])
    if chance.random() < 0.12:
        patterns = chance.sample(PATTERNS, chance.randint(1, 2))
        made["patternProperties"] = {name: _schema(chance, 0) for name in patterns}
    return made


def _array(chance: random.Random, depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "array", "maxItems": chance.choice([0, 1, 2, 3.0])}
    if chance.random() < 0.7:
        made["items"] = _schema(chance, depth - 1)
    if chance.random() < 0.3:
        made["prefixItems"] = [_schema(chance, depth - 1) for _ in range(chance.randint(1, 2))]
    if chance.random() < 0.3:
        made["minItems"] = chance.choice([0, 1.0])
    return made


def _one_of(chance: random.Random, depth: int) -> dict[str, Any]:
    word = chance.choice(["anyOf", "oneOf", "oneOf"])
    if chance.random() < 0.4:  # told apart by a name, as pydantic and zod write it
        parts = [
            {
                "type": "object",
                "properties": {"kind": {"const": kind}, "a": _schema(chance, 0)},
                "required": ["kind"],
            }
            for kind in ("one", "two")
        ]
    else:
        parts = [_schema(chance, depth - 1) for _ in range(chance.randint(1, 3))]
    return {**(_object(chance, 1) if chance.random() < 0.3 else {}), word: parts}


def _all_of(chance: random.Random, depth: int) -> dict[str, Any]:
    parts = [
        chance.choice([_object, _object, _reference, _one_of])(chance, depth - 1) for _ in range(2)
    ]
    return {**(_object(chance, 1) if chance.random() < 0.3 else {}), "allOf": parts}


def _reference(chance: random.Random, depth: int) -> dict[str, Any]:
    made = {"$ref": chance.choice(["#/$defs/D0", "#/$defs/D1", "#"])}
    return {**made, **_object(chance, 0)} if chance.random() < 0.15 else made


def answer_under(
    compiled: CompiledGrammar, tokenizer: Tokenizer, ends: set[int], chance: random.Random
) -> str | None:
    """Go a random way through a grammar; None where it does not end soon.

    What closes something is taken more often than by chance, so that most ways end.
    """
    closing = {id for mark in '"]}' for id in tokenizer.encode(mark, bos=False)} | ends
    constraint, said = compiled.constraint(ends), b""
    for step in range(400):
        allowed = constraint.allowed().nonzero().squeeze(1).tolist()
        near = [id for id in allowed if id in closing]
        id = chance.choice(near if near and chance.random() < step / 60 else allowed)
        over = constraint.accept(id)
        said += b"" if id in ends else tokenizer.token_bytes(id)
        if over:
            return said.decode()
    return None


def without(schema: Any, places: tuple[str, ...]) -> Any:
    """Return a copy of a schema without what is at some places: what is passed over."""
    made = json.loads(json.dumps(schema))
    for place in sorted(places, key=len, reverse=True):  # what is within another place first
        _remove(made, place)
    return made


def _remove(schema: Any, place: str) -> None:
    """Remove one place, of which a name may have dots and brackets in it."""
    if isinstance(schema, dict):
        for key in list(schema):
            if key == place:
                taken = schema.pop(key)
                if key == "oneOf":  # one of them still, and maybe more
                    schema.setdefault("allOf", []).append({"anyOf": taken})
            elif place.startswith(f"{key}."):
                _remove(schema[key], place[len(key) + 1 :])
            elif place.startswith(f"{key}[") and isinstance(schema[key], list):
                number, _, rest = place[len(key) + 1 :].partition("]")
                if number.isdecimal() and int(number) < len(schema[key]):
                    if rest:
                        _remove(schema[key][int(number)], rest[1:])
                    else:
                        schema[key][int(number)] = True
