"""Whatever schema comes in: an answer under what is held to validates, and the rest is named."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema_rs
import pytest

from griffin.grammar import Grammar, Grammars, hold, json_source
from griffin.sampling import ConstraintError
from tests.support.schema_cases import answer_under, draw_schema, without


def valid(schema: Any, data: Any) -> bool:
    tuples = isinstance(schema, dict) and "additionalItems" in schema
    draft = jsonschema_rs.Draft7Validator if tuples else jsonschema_rs.Draft202012Validator
    return draft(schema, validate_formats=True).is_valid(data)


def held(schema: Any, *, lenient: bool = False) -> dict[str, Any]:
    made = json.loads(hold(json_source(schema, lenient=lenient))[0])
    del made["x-guidance"]
    return made


def passed(schema: Any) -> tuple[str, ...]:
    return hold(json_source(schema, lenient=True))[1]


def answers(llm, schema: Any, count: int, *, lenient: bool = False) -> list[Any]:
    compiled = llm.grammars.compile(Grammar.json_schema(schema, lenient=lenient))
    said = [
        answer_under(compiled, llm.tokenizer, set(llm.stop_ids), random.Random(seed))
        for seed in range(count)
    ]
    return [json.loads(text) for text in said if text is not None]


def takes(grammars: Grammars, schema: Any, text: str, *, lenient: bool = False) -> bool:
    """Return whether a text is an answer under a schema."""
    compiled = grammars.compile(Grammar.json_schema(schema, lenient=lenient))
    constraint = compiled.constraint({grammars.tokenizer.eos_id})
    over = False
    try:
        for id in grammars.tokenizer.encode(text, bos=False):
            if over:
                return False
            over = constraint.accept(id)
    except ConstraintError:
        return False
    return over or bool(constraint.allowed()[grammars.tokenizer.eos_id])


def check(llm, seed: int, *, lenient: bool) -> bool:
    """Try a drawn schema; return whether there was an answer that an oracle could judge."""
    schema = draw_schema(random.Random(seed))
    try:
        compiled = llm.grammars.compile(Grammar.json_schema(schema, lenient=lenient))
    except ValueError:
        return False
    left = without(schema, compiled.passed)
    try:
        oracle = jsonschema_rs.Draft202012Validator(left, validate_formats=True)
    except (ValueError, jsonschema_rs.ReferencingError):
        return False  # it reads patterns and references that nobody is held to
    try:
        text = answer_under(compiled, llm.tokenizer, set(llm.stop_ids), random.Random(seed))
    except ConstraintError:
        return False
    if text is None or "Infinity" in json.dumps(json.loads(text)):
        return False
    assert oracle.is_valid(json.loads(text)), (seed, text, schema, compiled.passed)
    return True


@pytest.mark.parametrize("lenient", [False, True])
def test_an_answer_under_any_schema_is_valid(llm, lenient):
    judged = sum(check(llm, seed, lenient=lenient) for seed in range(60))
    assert judged > 20


@pytest.mark.thorough
@pytest.mark.parametrize("lenient", [False, True])
def test_an_answer_under_many_schemas_is_valid(llm, lenient):
    judged = sum(check(llm, seed, lenient=lenient) for seed in range(1000, 1500))
    assert judged > 200


# What clients send, held to without a loss.

TELLING = {
    "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
    "discriminator": {"propertyName": "kind"},
    "$defs": {
        kind: {
            "type": "object",
            "title": kind,
            "properties": {"kind": {"const": kind, "type": "string"}, "age": {"type": "integer"}},
            "required": ["kind", "age"],
        }
        for kind in ("Cat", "Dog")
    },
}
TREE = {
    "$ref": "#/$defs/Node",
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "next": {"anyOf": [{"$ref": "#/$defs/Node", "description": "x"}, {"type": "null"}]}
            },
            "required": ["next"],
        }
    },
}
WHOLE = {
    "z.record": {
        "type": "object",
        "propertyNames": {"type": "string"},
        "additionalProperties": {"type": "integer"},
    },
    "z.record of an enum": {
        "type": "object",
        "propertyNames": {"type": "string", "enum": ["a", "b"]},
        "additionalProperties": {"type": "boolean"},
        "required": ["a", "b"],
    },
    "z.record of a pattern": {
        "type": "object",
        "propertyNames": {"type": "string", "pattern": "^k[0-9]$"},
        "additionalProperties": {"type": "boolean"},
    },
    "a discriminated union": TELLING,
    "a tree": TREE,
    "parts without a common name": {
        "oneOf": [
            {"type": "object", "properties": {n: {"type": "null"}}, "required": [n]} for n in "ab"
        ]
    },
    "annotations": {
        "$schema": "https://example.org/unknown",
        "$id": "https://example.org/x",
        "type": "string",
        "maxLength": 3,
        "deprecated": True,
        "contentEncoding": "base64",
        "examples": [1],
        "$comment": "x",
    },
    "numbers with a point": {
        "type": "array",
        "items": {"type": "string", "minLength": 1.0, "maxLength": 2.0},
        "minItems": 1.0,
        "maxItems": 3.0,
    },
    "nothing asked": {
        "type": "array",
        "items": {"type": "boolean"},
        "uniqueItems": False,
        "minContains": 0,
        "maxItems": 2,
    },
    "one item": {"type": "array", "items": {"type": "boolean"}, "maxItems": 1, "uniqueItems": True},
    "closed another way": {
        "type": "object",
        "properties": {"a": {"type": "null"}},
        "allOf": [{"properties": {"b": {"type": "null"}}}],
        "unevaluatedProperties": False,
    },
    "2019's tuples": {
        "type": "array",
        "items": [{"type": "null"}],
        "additionalItems": False,
        "minItems": 1,
    },
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_clients_send_is_held_to(llm, name):
    schema = WHOLE[name]
    said = answers(llm, schema, 6)
    assert said and all(valid(schema, data) for data in said)


# What is passed over, by its place; and refused where all must be held to.

UNHELD = {
    "properties.p.format": {"properties": {"p": {"type": "string", "format": "path"}}},
    "properties.p.uniqueItems": {
        "properties": {"p": {"type": "array", "uniqueItems": True, "items": {}}}
    },
    "properties.p.pattern": {"properties": {"p": {"type": "string", "pattern": "^(?=a)b"}}},
    "properties.p.type": {"properties": {"p": {"type": "any"}}},
    "properties.p.$ref": {"properties": {"p": {"$ref": "https://example.org/s.json"}}},
    "$defs.D.not": {"$ref": "#/$defs/D", "$defs": {"D": {"not": {"type": "null"}}}},
    "items.oneOf": {"items": {"oneOf": [{"type": "string"}, {"maxLength": 3}]}},
    "anyOf[1].contains": {"anyOf": [{"type": "null"}, {"contains": {"const": 1}}]},
    "if": {"if": {"required": ["a"]}, "then": {"required": ["b"]}},
    "dependentRequired": {"dependentRequired": {"a": ["b"]}},
    "dependentSchemas": {"dependentSchemas": {"a": {"required": ["b"]}}},
    "patternProperties": {"patternProperties": {"a": {"type": "null"}, "b": {"type": "string"}}},
    "patternProperties.(?=a)": {"patternProperties": {"(?=a)": {}}},
    "unevaluatedProperties": {"unevaluatedProperties": {"type": "string"}},
    "unevaluatedItems": {"allOf": [{"prefixItems": [{}]}], "unevaluatedItems": False},
    "propertyNames": {"type": "object", "propertyNames": {"maxLength": 3}},
    "minProperties": {"type": "object", "minProperties": 2},
    "multipleOf": {"type": "number", "multipleOf": 0.07},
    "minimum": {"type": "integer", "minimum": 10**20},
    "exclusiveMinimum": {"type": "number", "exclusiveMinimum": 10**20},
    "const": {"const": 2**60 + 1},
    "enum": {"enum": [2**60 + 1, 2**61 + 1]},
    "minLength": {"minLength": "1"},
    "maximum": {"type": "integer", "minimum": 2**59 + 1, "maximum": 2**59 + 3},
    "required": {"required": "a"},
}


@pytest.mark.parametrize("place", UNHELD)
def test_what_cannot_be_held_to_is_named_or_refused(place):
    schema = UNHELD[place]
    assert passed(schema) == (place,)
    with pytest.raises(ValueError) as caught:
        hold(json_source(schema))
    assert str(caught.value).startswith(f"{place} cannot be held to: ")


def test_the_rest_of_a_schema_is_held_to(llm):
    schema = {
        "type": "object",
        "properties": {
            "path": {"type": "string", "format": "path", "maxLength": 4},
            "tags": {"type": "array", "uniqueItems": True, "items": {"enum": ["a", "b"]}},
            "when": {"type": "string", "format": "date"},
        },
        "required": ["path", "tags", "when"],
    }
    places = ("properties.path.format", "properties.tags.uniqueItems")
    assert passed(schema) == places
    left = without(schema, places)
    assert all(valid(left, data) for data in answers(llm, schema, 5, lenient=True))


def test_parts_told_apart_by_what_is_not_held_to_may_overlap():
    parts = [{"type": "object", "properties": {"k": {"const": c}}, "required": ["k"]} for c in "ab"]
    assert passed({"oneOf": parts}) == ()
    parts[0]["properties"]["k"] = {"const": 2**60 + 1}
    assert set(passed({"oneOf": parts})) == {"oneOf[0].properties.k.const", "oneOf"}


@pytest.mark.parametrize("lenient", [False, True])
def test_a_schema_that_nothing_fits_is_refused(llm, lenient):
    for schema in (
        *({"type": "integer", "minimum": 3, "maximum": 2}, {"enum": []}, {"$ref": "#"}),
        {"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]},
    ):
        with pytest.raises(ValueError, match="the JSON schema"):
            llm.grammars.compile(Grammar.json_schema(schema, lenient=lenient))


# Objects.


def closed(schema: dict[str, Any]) -> set[str]:
    """Return the names that the objects of a schema may have; it must have no other."""
    made = held(schema)
    assert made["additionalProperties"] is False
    return set(made["properties"])


A, B = {"properties": {"a": {"type": "null"}}}, {"properties": {"b": {"type": "null"}}}


def test_objects_have_the_names_that_are_declared():
    assert closed(A) == {"a"}
    assert closed({"type": "object", "properties": {}}) == set()
    assert closed({**A, "required": ["b"]}) == {"a", "b"}
    assert closed({"allOf": [A, B]}) == {"a", "b"}
    assert closed({**A, "$ref": "#/$defs/B", "$defs": {"B": B}}) == {"a", "b"}
    made = held({**A, "anyOf": [B, {"properties": {"c": {}}}]})
    assert [set(part["properties"]) for part in made["anyOf"]] == [{"a", "b"}, {"a", "c"}]
    assert "additionalProperties" not in made
    inner = held({"properties": {"o": A}})["properties"]["o"]
    assert inner["additionalProperties"] is False


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {**A, "additionalProperties": True},
        {**A, "additionalProperties": {"type": "integer"}},
        {"allOf": [A, {"additionalProperties": True}]},
        {**A, "minProperties": 2},
        {"type": "object", "required": ["a"]},
    ],
)
def test_objects_that_say_so_stay_open(schema):
    assert held(schema, lenient=True).get("additionalProperties") is not False


def test_two_objects_that_one_must_fit_can_be_met(llm):
    one = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    two = {"type": "object", "properties": {"b": {"type": "null"}}, "required": ["b"]}
    for data in answers(llm, {"allOf": [one, {"$ref": "#/$defs/D"}], "$defs": {"D": two}}, 4):
        assert set(data) == {"a", "b"}


SPELLINGS = {
    "a": ["\\u0061"],
    'q"': ["q\\u0022"],
    "é": ["\\u00e9", "\\u00E9"],
    "\n": ["\\u000a", "\\u000A"],
    "/": ["\\/", "\\u002f"],
    "\\": ["\\u005c"],
    "🦉": ["\\ud83e\\udd89"],
    "\u0001": ["\\u0001"],
}


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("extra", [{}, {"properties": {"c": {"const": "\u0002"}}}])
def test_no_other_spelling_of_a_name_is_another_name(grammars, name, extra):
    """Or it would override the declared one, once it is read."""
    schema = {
        "type": "object",
        "properties": {name: {"type": "integer"}, **extra.get("properties", {})},
        "additionalProperties": {"type": "string"},
    }
    (own, *_) = json.dumps(name, ensure_ascii=False)[1:-1], None
    assert takes(grammars, schema, f'{{"{own}":1}}')
    for spelling in (*SPELLINGS[name], own):
        assert not takes(grammars, schema, f'{{"{own}":1,"{spelling}":"x"}}'), spelling
        if spelling != own:
            assert not takes(grammars, schema, f'{{"{spelling}":"x"}}'), spelling


def test_multiples_cost_as_much_as_their_digits_say():
    """A million would compile for seconds and take 270 MB; one of two billion, all of a machine."""
    assert passed({"type": "integer", "multipleOf": 1_000_003}) == ("multipleOf",)
    steps = {"a": 86400, "b": 0.25, "c": 25, "d": 100, "e": 111, "f": 1}
    many = {name: {"type": "number", "multipleOf": step} for name, step in steps.items()}
    assert passed({"type": "object", "properties": many}) == ("properties.e.multipleOf",)
