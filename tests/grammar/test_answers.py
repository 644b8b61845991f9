"""A random model, which by itself would never write JSON: every answer of it is valid."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from griffin.engine import generate
from griffin.grammar import Grammar
from griffin.sampling import ConstraintError

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["é", 'c"d', "☃", 1, None]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "boolean"},
                "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/leaf"}]},
            },
            "required": ["value", "next"],
            "additionalProperties": False,
        },
        "leaf": {"type": "object", "properties": {}, "additionalProperties": False},
    },
    "$ref": "#/$defs/node",
}
STRINGS = {
    "type": "array",
    "prefixItems": [
        {"type": "string", "format": "date"},
        {"type": "string", "format": "uuid"},
        {"type": "string", "pattern": "^[A-Z]{2}[0-9]{1,3}$"},
        {"type": "string", "minLength": 2, "maxLength": 4},
    ],
    "items": False,
    "minItems": 4,
}
SMALL = {"type": "integer", "minimum": -5, "maximum": 20}
UNION = {"anyOf": [{"type": "boolean"}, {"const": {"a": [1, 2]}}, SMALL]}
PLENTY = 400


@pytest.mark.sweep
@pytest.mark.parametrize(
    "schema", [PERSON, TREE, STRINGS, UNION], ids=["person", "tree", "strings", "union"]
)
def test_every_answer_is_valid(llm, schema):
    grammar = Grammar.json_schema(schema)
    prompts = ["x", "import json\n", "{"]
    answers = llm.generate(prompts, grammar=grammar, seed=1, max_tokens=PLENTY)
    answers += [llm.generate("x", grammar=grammar, temperature=0, max_tokens=PLENTY)]
    answers += [
        llm.chat([{"role": "user", "content": "Hi"}], grammar=grammar, seed=2, max_tokens=PLENTY)
    ]
    for answer in answers:
        assert answer.finish_reason == "stop"
        jsonschema_rs.validate(schema, json.loads(answer.text))
        assert max(answer.ids) < llm.tokenizer.vocab_size < llm.model.config.vocab_size
    assert answers[0].text == llm.generate("x", grammar=grammar, seed=1, max_tokens=PLENTY).text


def test_the_answer_is_the_one_of_the_model_among_what_is_allowed(llm):
    """The first token is the most probable one of those the grammar allows."""
    grammar = Grammar.regex("[0-9]+")
    answer = llm.generate("def f(", grammar=grammar, temperature=0, max_tokens=1, logprobs=100)
    digits = [
        id
        for id, _ in answer.alternatives[0]
        if re.fullmatch("[0-9]+", llm.tokenizer.token_text(id))
    ]
    assert answer.ids[0] == digits[0] and answer.finish_reason == "length"


def test_any_object(llm):
    """Nothing bounds it: it may be cut short, and is then the beginning of one."""
    grammar = Grammar.json_object()
    for seed in range(4):
        answer = llm.generate("x", grammar=grammar, seed=seed, max_tokens=60)
        assert answer.text.startswith("{")
        if answer.finish_reason == "stop":
            assert isinstance(json.loads(answer.text), dict)


def test_choices_and_patterns(llm):
    said = {
        llm.generate("x", grammar=Grammar.choice("yes", "no", "☃"), seed=s).text for s in range(12)
    }
    assert said <= {"yes", "no", "☃"} and len(said) > 1
    answer = llm.generate("x", grammar=Grammar.regex(r"\d{4}-[a-c]{2}"), seed=0)
    assert re.fullmatch(r"\d{4}-[a-c]{2}", answer.text) and answer.finish_reason == "stop"


def test_streams_and_what_follows(llm):
    grammar = Grammar.choice("yes", "no")
    stream = llm.stream("x", grammar=grammar, seed=3)
    text = "".join(piece.text for piece in stream)
    assert text == stream.result.text == llm.generate("x", grammar=grammar, seed=3).text
    after = llm.generate(stream.context, seed=1, max_tokens=5)
    whole = [*llm.tokenizer.encode("x"), *stream.result.ids]
    assert after.ids == llm.generate(whole, seed=1, max_tokens=5).ids


def test_a_grammar_that_gets_too_complex_ends_its_answer_alone(llm):
    """It compiles, and fails once the model has said something."""
    many = {"type": "object", "properties": {f"k{n}": {"type": "string"} for n in range(1500)}}
    wide = llm.request("x", grammar=Grammar.json_schema(many), seed=1)
    free = llm.request("x", seed=1, max_tokens=9)
    events, errors = [], []
    generation = generate(llm.model, [wide, free])
    while True:
        try:
            events.append(next(generation))
        except StopIteration:
            break
        except ConstraintError as error:
            errors.append(error)
    assert len(errors) == 1 and "items" in str(errors[0])
    assert (
        tuple(e.id for e in events if e.index == 1) == llm.generate("x", seed=1, max_tokens=9).ids
    )


def test_a_seed_decides_and_prompts_do_not_feel_each_other(llm):
    grammar = Grammar.json_schema(PERSON)
    together = llm.generate(["x", "y"], grammar=grammar, seed=5, max_tokens=PLENTY)
    for prompt, answer in zip(["x", "y"], together, strict=True):
        alone = llm.generate(prompt, grammar=grammar, seed=5, max_tokens=PLENTY)
        assert (alone.ids, alone.logprobs) == (answer.ids, answer.logprobs)


def _integer(low: int, more: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": low + more}


def _object(made: list[tuple[str, dict[str, Any], bool]]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: schema for name, schema, _ in made},
        "required": [name for name, _, needed in made if needed],
        "additionalProperties": False,
    }


_VALUES = st.sampled_from([1, "a", None, [], {"é": 2.5}])
_LEAVES = st.one_of(
    st.sampled_from([{"type": "boolean"}, {"type": "null"}]),
    st.builds(lambda n: {"type": "string", "maxLength": n}, st.integers(0, 5)),
    st.builds(_integer, st.integers(-99, 99), st.integers(0, 9)),
    st.builds(lambda values: {"enum": values}, st.lists(_VALUES, min_size=1, max_size=3)),
)


def _objects(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    field = st.tuples(st.text('ab é"\\', min_size=1, max_size=3), inner, st.booleans())
    return st.lists(field, max_size=3, unique_by=lambda made: made[0]).map(_object)


SCHEMAS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        _objects(inner),
        st.builds(
            lambda s, n: {"type": "array", "items": s, "maxItems": n}, inner, st.integers(0, 3)
        ),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
    ),
    max_leaves=6,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(schema=SCHEMAS, seed=st.integers(0, 1000))
def test_any_schema_any_way(llm, schema, seed):
    """Without the model: whichever allowed token is taken, what comes out fits."""
    constraint = llm.grammars.compile(Grammar.json_schema(schema)).constraint(llm.stop_ids)
    chance, said = random.Random(seed), b""
    for _ in range(2000):
        id = chance.choice(constraint.allowed().nonzero().squeeze(1).tolist())
        over = constraint.accept(id)
        said += b"" if id in llm.stop_ids else llm.tokenizer.token_bytes(id)
        if over:
            break
    else:
        raise AssertionError("it does not come to an end")
    jsonschema_rs.validate(schema, json.loads(said))


@pytest.mark.parametrize(
    ("rules", "fits"),
    [
        ('root ::= item{2,3}\nitem ::= "- " [a-z]{1,4} "\\n"\n', r"(- [a-z]{1,4}\n){2,3}"),
        ('# a comment\nroot ::= "\\u00e9" ("x" | y-z)\ny-z ::= [\\u0041-\\x43]', "é(x|[A-C])"),
        (
            'root ::= "\\"" [^"\\\\\\x00-\\x1F]{1,3} "\\"" "\\\\u0041"',
            r'"[^"\\\x00-\x1f]{1,3}"\\u0041',
        ),
        ('start: "::=" NUMBER\nNUMBER: /[0-9]{1,3}/', "::=[0-9]{1,3}"),
        ("start: /a|b/ c\nc: /[xy]/", "[ab][xy]"),
        ('start: "n: " %json{"type": "integer", "minimum": 10, "maximum": 99}', "n: [1-9][0-9]"),
    ],
)
def test_rules_in_both_ways_of_writing(llm, rules, fits):
    answers = {llm.generate("x", grammar=Grammar.ebnf(rules), seed=n).text for n in range(12)}
    assert len(answers) > 1 and all(re.fullmatch(fits, answer) for answer in answers)
