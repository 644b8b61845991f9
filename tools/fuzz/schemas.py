"""JSON schemas as clients send them, and worse: answers under what is held to are validated.

A case is a schema, strict or not. It is refused, or a random way through its grammar must fit the
schema without the places that are said to be passed over.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

import griffin
from griffin.grammar import Grammar, Grammars
from griffin.sampling import ConstraintError
from griffin.text import Tokenizer
from tests.support.schema_cases import answer_under, draw_schema, without

ALLOWED = (ConstraintError, ValueError)


@dataclass(frozen=True)
class Case:
    """A schema, how it is taken, and what the way through it is drawn with."""

    schema: Any
    lenient: bool
    seed: int

    def __str__(self) -> str:
        return f"{json.dumps(self.schema)}, {'lenient' if self.lenient else 'strict'}"


def make(chance: random.Random) -> Case:
    """Draw a case."""
    return Case(draw_schema(chance), chance.random() < 0.6, chance.getrandbits(32))


def attempt(case: Case) -> None:
    """Compile a schema, and hold an answer under it against an oracle."""
    grammars = _grammars()
    compiled = grammars.compile(Grammar.json_schema(case.schema, lenient=case.lenient))
    ends = {grammars.tokenizer.eos_id}
    text = answer_under(compiled, grammars.tokenizer, ends, random.Random(case.seed))
    try:
        oracle = jsonschema_rs.Draft202012Validator(
            without(case.schema, compiled.passed), validate_formats=True
        )
    except (ValueError, jsonschema_rs.ReferencingError):
        return  # it reads patterns and references that nobody is held to
    if text is None or "Infinity" in json.dumps(json.loads(text)):
        return
    assert oracle.is_valid(json.loads(text)), text


@cache
def _grammars() -> Grammars:
    return Grammars(Tokenizer.open(Path(str(griffin.__file__)).parent / "data" / "nano"))
