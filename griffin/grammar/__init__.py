"""What an answer may look like: schemas, patterns and choices to constraints on tokens."""

from griffin.grammar.constraint import GrammarConstraint
from griffin.grammar.grammar import Grammar, json_source, quoted
from griffin.grammar.grammars import CompiledGrammar, Grammars

__all__ = ["CompiledGrammar", "Grammar", "GrammarConstraint", "Grammars", "json_source", "quoted"]
