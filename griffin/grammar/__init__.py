"""What an answer may look like: schemas, patterns and choices to constraints on tokens."""

from griffin.grammar.constraint import GrammarConstraint
from griffin.grammar.grammar import Grammar, json_source, quoted
from griffin.grammar.grammars import CompiledGrammar, Grammars, hold
from griffin.grammar.keywords import TYPES

__all__ = [
    "TYPES",
    "CompiledGrammar",
    "Grammar",
    "GrammarConstraint",
    "Grammars",
    "hold",
    "json_source",
    "quoted",
]
