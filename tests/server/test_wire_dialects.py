"""What public dialects of the interface ask for: used, refused by name, or named as passed over."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from griffin.server import protocol as p
from griffin.server.endpoints.responses.body import ResponseRequest
from griffin.server.errors import ApiError
from griffin.server.limits import Limits
from tests.support.dialects import DIALECTS, SCHEMA
from tests.support.request_bodies import ENDPOINTS, LIMITS, PARSERS, parse, refused

FIELDS = [
    (kind, dialect, field)
    for kind in ENDPOINTS
    for dialect, fields in DIALECTS.items()
    for field in fields
]


@pytest.mark.parametrize(("kind", "dialect", "field"), FIELDS)
def test_no_field_is_dropped_without_a_word(kind, dialect, field):
    tables, body, _ = ENDPOINTS[kind]
    try:
        asked = parse(kind, **{field: DIALECTS[dialect][field]})
    except ApiError as error:
        assert error.status == 400 and (error.param or "").startswith(field)
    else:
        used = field in body.__struct_encode_fields__
        harmless = field in tables.ignored  # a token never depends on it
        assert (field in asked.ignored) is not (used or harmless)


@pytest.mark.parametrize("kind", ENDPOINTS)
@pytest.mark.parametrize("field", ["n_predict", "max_new_tokens"])
def test_other_words_for_the_most_tokens(kind, field):
    assert parse(kind, **{field: 7}).sampling["max_tokens"] == 7
    assert parse(kind, **{field: 7}).ignored == ()


OWN = {
    "chat": ("max_tokens", "max_completion_tokens", "n_predict", "max_new_tokens"),
    "completion": ("max_tokens", "n_predict", "max_new_tokens"),
    "response": ("max_output_tokens", "n_predict", "max_new_tokens"),
}


@pytest.mark.parametrize("kind", ENDPOINTS)
def test_no_limit_and_more_than_the_limit(kind):
    for field in OWN[kind]:
        unlimited = parse(kind, **{field: -1})
        assert unlimited.sampling["max_tokens"] == LIMITS.max_tokens and unlimited.ignored == ()
        for many in (LIMITS.max_tokens + 1, 10**12, 1e15):
            clamped = parse(kind, **{field: many})
            assert clamped.sampling["max_tokens"] == LIMITS.max_tokens
            assert clamped.ignored == (field,)
        for wrong in (-2, 0.5, "7", True, 2**70):
            assert refused(kind, **{field: wrong}).param == field
    error = refused(kind, **{OWN[kind][0]: 5, "n_predict": 6})
    assert error.param == OWN[kind][0] and "they mean the same" in error.message


def test_schemas_in_any_place():
    """llama.cpp's and TGI's, and OpenAI's; what says nothing beside another is named."""
    for form, place in (
        ({"type": "json_object", "schema": SCHEMA}, "response_format.schema"),
        ({"type": "json_schema", "schema": SCHEMA}, "response_format.schema"),
        ({"type": "json", "value": SCHEMA}, "response_format.value"),
        (
            {"type": "json_object", "json_schema": {"schema": SCHEMA}},
            "response_format.json_schema.schema",
        ),
    ):
        for kind in ("chat", "completion"):
            asked = parse(kind, response_format=form)
            assert asked.format == p.JsonFormat(SCHEMA, None, False, place) and not asked.ignored
    flat = {"format": {"type": "json_object", "schema": SCHEMA}}
    assert parse("response", text=flat).format == p.JsonFormat(
        SCHEMA, None, False, "text.format.schema"
    )
    unused = parse("chat", response_format={"type": "text", "schema": SCHEMA})
    assert unused.format is None and unused.ignored == ("response_format.schema",)
    both = {"type": "json_schema", "json_schema": {"schema": {}}, "schema": SCHEMA}
    asked = parse("chat", response_format=both)
    assert asked.format.schema == {} and asked.ignored == ("response_format.schema",)
    assert parse("chat", response_format={**both, "strict": True}).format.strict
    assert parse("chat", response_format={"type": "json"}).format == p.JsonFormat()
    assert refused("chat", response_format={"type": "json_schema"}).param == (
        "response_format.json_schema"
    )


def test_options_of_streams():
    asked = parse("chat", stream_options={"continuous_usage_stats": True, "include_usage": True})
    assert asked.ignored == () and asked.include_usage and asked.telling.usage_so_far


def test_a_prediction_is_a_source_of_drafts():
    parts = [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]
    for content, said in (("x", "x"), (parts, "xy")):
        asked = parse("chat", prediction={"type": "content", "content": content})
        assert asked.ignored == () and asked.sampling["prediction"] == said
    assert "prediction" not in parse("chat", prediction=None).sampling
    for wrong in ({}, "x", {"type": "content"}, {"type": "other", "content": "x"}):
        with pytest.raises(ApiError) as refused:
            parse("chat", prediction=wrong)
        assert refused.value.status == 400 and (refused.value.param or "").startswith("prediction")


def test_drafts_may_be_asked_for_or_refused():
    for draft in (0, 15):
        assert parse("chat", draft=draft).sampling["draft"] == draft
    assert "draft" not in parse("chat", draft=None).sampling
    with pytest.raises(ApiError):
        parse("chat", draft=16)


# Whole numbers with a point.

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
WHOLE = {
    "chat": {
        "max_tokens": 3,
        "n": 1,
        "seed": 42,
        "top_k": 40,
        "top_logprobs": 2,
        "logprobs": True,
        "stop_token_ids": [1, 2],
        "max_new_tokens": 3,
    },
    "completion": {"max_tokens": 3, "n": 2, "logprobs": 1, "prompt": [1, 2], "seed": -1},
    "response": {"max_output_tokens": 3, "top_logprobs": 1, "top_k": 2},
    "fork": {"at": 3},
    "rewind": {"turns": 2},
    "append": {"tokens": [1, 2], "text": None},
    "state": {"name": "x", "tokens": [3, 4], "text": None},
    "detokenize": {"tokens": [1, 2, 3]},
}


def pointed(value: Any) -> Any:
    if isinstance(value, list):
        return [pointed(inner) for inner in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_numbers_with_a_point(kind):
    function, base = PARSERS[kind]
    whole = base | WHOLE[kind]
    written = {name: pointed(value) for name, value in whole.items()}
    assert written != json.loads(json.dumps(whole)) or json.dumps(written) != json.dumps(whole)
    assert same(
        function(json.dumps(written).encode(), LIMITS), function(json.dumps(whole).encode(), LIMITS)
    )
    assert types(function(json.dumps(written).encode(), LIMITS)) == types(
        function(json.dumps(whole).encode(), LIMITS)
    )


def same(one: Any, other: Any) -> bool:
    """Return whether two requests are equal, but for the ids that were given to new items."""
    if not isinstance(one, ResponseRequest):
        return one == other
    plain = [[{**item, "id": ""} for item in each.items] for each in (one, other)]
    bare = [dataclasses.replace(each, items=()) for each in (one, other)]
    return bare[0] == bare[1] and plain[0] == plain[1]


def types(value: Any) -> Any:
    """Return a value's types, all the way down."""
    if isinstance(value, dict):
        return {key: types(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [types(inner) for inner in value]
    fields = getattr(value, "__struct_fields__", None) or getattr(value, "__dict__", None)
    return {name: types(getattr(value, name)) for name in fields} if fields else type(value)


@pytest.mark.parametrize("value", [3.5, 1e400, "3", True, [3.0]])
def test_other_numbers_are_none(value):
    body = json.dumps({"messages": [{"role": "user", "content": "x"}], "n": value})
    with pytest.raises(ApiError) as caught:
        PARSERS["chat"][0](body.replace("Infinity", "1e400").encode(), LIMITS)
    assert caught.value.param == "n"


def test_floats_stay_floats():
    asked = parse("chat", temperature=1.0, top_p=1, logit_bias={"3": 2.0}, n=1.0)
    assert [type(asked.sampling[name]) for name in ("temperature", "top_p")] == [float, float]
    assert asked.sampling["logit_bias"] == {3: 2.0} and asked.n == 1
    metadata = parse("response", metadata={"a": "1.0"}, max_output_tokens=2.0)
    assert metadata.metadata == {"a": "1.0"}


def test_a_long_list_of_ids_with_a_point_is_read_at_once():
    limits = Limits(vocab_size=1000)
    body = json.dumps({"tokens": [float(n % 1000) for n in range(100_000)]}).encode()
    read = PARSERS["detokenize"][0](body, limits)
    assert read.tokens[:3] == (0, 1, 2) and type(read.tokens[-1]) is int


# The form of an answer, in vLLM's and llama.cpp's words.

FORMS = [
    ({"structured_outputs": {"json": SCHEMA}}, SCHEMA),
    ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, SCHEMA),
    ({"structured_outputs": {"json_object": True}}, None),
    ({"guided_json": SCHEMA}, SCHEMA),
    ({"json_schema": SCHEMA}, SCHEMA),
]
TEXTS = [
    ({"structured_outputs": {"regex": "a+"}}, ("regex", ("a+",))),
    ({"structured_outputs": {"choice": ["a", "b"]}}, ("choice", ("a", "b"))),
    ({"structured_outputs": {"grammar": "start: x"}}, ("grammar", ("start: x",))),
    ({"guided_regex": "a+"}, ("regex", ("a+",))),
    ({"guided_choice": ["a"]}, ("choice", ("a",))),
    ({"guided_grammar": "root ::= x"}, ("grammar", ("root ::= x",))),
    ({"grammar": "root ::= x"}, ("grammar", ("root ::= x",))),
]


@pytest.mark.parametrize("kind", ENDPOINTS)
def test_the_form_of_an_answer_in_other_words(kind):
    for fields, schema in FORMS:
        (place,) = places(fields)
        asked = parse(kind, **fields)
        assert asked.format == p.JsonFormat(schema, place=place) and not asked.ignored
    for fields, (form, texts) in TEXTS:
        (place,) = places(fields)
        asked = parse(kind, **fields)
        assert asked.format == p.TextFormat(form, texts, place) and not asked.ignored
    for nothing in (
        {"structured_outputs": None},
        {"structured_outputs": {}},
        {"structured_outputs": {"json_object": False, "structural_tag": None}},
        {"guided_json": None, "grammar": "", "guided_choice": None},
    ):
        assert parse(kind, **nothing).format is None
    odd = {"regex": "a", "whitespace_pattern": " ", "disable_any_whitespace": True}
    assert parse(kind, structured_outputs=odd).ignored == (
        "structured_outputs.whitespace_pattern",
        "structured_outputs.disable_any_whitespace",
    )


def places(fields: dict[str, Any]) -> list[str]:
    return [
        f"{name}.{inner}" if name == "structured_outputs" else name
        for name, value in fields.items()
        for inner in (value if name == "structured_outputs" else ("",))
    ]


@pytest.mark.parametrize("kind", ENDPOINTS)
def test_how_long_an_answer_is_and_of_what(kind):
    asked = parse(kind, min_tokens=5, ignore_eos=True, allowed_token_ids=[7, 8])
    given = {"min_tokens": 5, "ignore_eos": True, "allowed_ids": (7, 8)}
    assert given.items() <= asked.sampling.items() and not asked.ignored
    nothing = {"min_tokens": None, "ignore_eos": None, "allowed_token_ids": None}
    assert same(parse(kind, **nothing), parse(kind))


# Conversations that do not begin with the user.


@pytest.mark.parametrize(
    ("said", "turns"),
    [
        ([("system", "S")], [("user", "S")]),
        ([("developer", "S"), ("system", "T")], [("user", "S\n\nT")]),
        ([("assistant", "A"), ("user", "U")], [("user", ""), ("assistant", "A"), ("user", "U")]),
        (
            [("system", "S"), ("assistant", "A"), ("user", "U")],
            [("user", "S"), ("assistant", "A"), ("user", "U")],
        ),
        ([("system", "S"), ("user", "U")], [("system", "S"), ("user", "U")]),
    ],
)
def test_a_conversation_begins_with_the_user(said, turns):
    asked = parse("chat", messages=[{"role": role, "content": text} for role, text in said])
    assert [tuple(one.values()) for one in p.turns(asked.messages)] == turns


def test_a_system_message_alone_is_no_turn_of_a_conversation_that_has_begun():
    said = [p.Message("system", "S")]
    assert p.turns(said, begun=True) == [{"role": "system", "content": "S"}]
