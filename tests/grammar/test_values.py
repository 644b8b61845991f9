"""Formats and bounds of JSON schemas, to the last character."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from griffin.grammar.formats import FORMATS
from tests.grammar.test_schemas import answers, passed, takes, valid


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_exact(llm, name):
    schema = {"type": "string", "format": name}
    said = answers(llm, schema, 40)
    assert len(set(said)) > 10
    assert not [text for text in said if not valid(schema, text)]


def test_dates_are_days_that_are(grammars):
    schema = {"type": "string", "format": "date"}
    for day, is_one in (
        *(("2023-02-29", False), ("2024-02-29", True), ("1900-02-29", False)),
        *(("2000-02-29", True), ("0000-01-01", False), ("2023-04-31", False)),
        *(("2023-12-31", True), ("0001-01-01", True), ("2100-02-28", True)),
    ):
        assert takes(grammars, schema, f'"{day}"') is is_one, day


@pytest.mark.parametrize("kind", ["integer", "number"])
@pytest.mark.parametrize("word", ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])
def test_bounds_beyond_what_floats_hold(grammars, kind, word):
    """They let nothing through that the schema does not, and most of what it does."""
    for bound in (2**53 + 1, -(2**53) - 1, 2**59 + 1, -(2**63), 2**63 - 1, 10**30):
        schema = {"type": kind, word: bound}
        if passed(schema):
            assert abs(bound) > 10**18
            continue
        near = [bound + step for step in (-4096, -2, -1, 0, 1, 2, 4096)]
        taken = [n for n in near if takes(grammars, schema, str(n))]
        assert all(valid(schema, n) for n in taken)
        if abs(bound) < 10**18:
            assert taken and (min(taken) < bound) == ("aximum" in word)


NUMBERS = (
    "0",
    "-0",
    "0.0",
    "-0.000",
    "1",
    "1.0",
    "-1",
    "2",
    "2.0",
    "0.5",
    "10e0",
    "-2",
    "0e5",
    "0.50",
)


@pytest.mark.parametrize("low", [None, 0, 1, -1, 0.5, -0.5, 2])
@pytest.mark.parametrize("high", [None, 0, 1, -1.5, 0.5, 2.5, 10])
def test_bounds_at_whole_numbers(llm, low, high):
    for strict_low, strict_high in product([False, True], repeat=2):
        schema: dict[str, Any] = {"type": "number"}
        if low is not None:
            schema["exclusiveMinimum" if strict_low else "minimum"] = low
        if high is not None:
            schema["exclusiveMaximum" if strict_high else "maximum"] = high
        try:
            taken = [text for text in NUMBERS if takes(llm.grammars, schema, text)]
        except ValueError:
            continue  # nothing fits it
        assert all(valid(schema, json.loads(text)) for text in taken), (schema, taken)
