"""Grammars for one tokenizer: compiled once, used by many answers."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from griffin.grammar.constraint import GrammarConstraint, brief
from griffin.grammar.grammar import Grammar, json_source
from griffin.grammar.mend import mend
from griffin.grammar.schema import HeldSchema
from griffin.text import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

KEPT, KEPT_BYTES = 64, 32 << 20
# Of memory for a character of what llguidance is given: names take some 120, bounded numbers 500.
_CHARACTER_BYTES = 256
# Where a grammar leaves no choice, llguidance goes ahead to where it does: 350 bytes a byte.
_MOST_FORCED, _FORCED_BYTES = 1 << 16, 384
_AT_ONCE = 256  # ids of an answer that was begun; between them others get their turn
# What a grammar may cost: a fifth of a second to compile, some 15 ms a token, 100 MB of an answer's
# own.
_LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_items_in_row": 2_000,
    "max_lexer_states": 100_000,
    "max_grammar_size": 500_000,
    "verbose_errors": False,
}


_START = re.compile(r"^\s*start\s*:(?!:)", re.MULTILINE)  # of a Lark grammar
_SCHEMA = re.compile(r"%json\s*")  # before a schema in one
# At a grammar's end; the last one counts. In rules that leave no choice for long, going ahead takes
# minutes and gigabytes, in the middle of an answer.
_NO_FORCING = '\n%llguidance {"no_forcing": true}\n'
_ESCAPED = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|.)")  # in GBNF


class CompiledGrammar:
    """A grammar in a tokenizer's ids. `Grammars.compile` makes it.

    passed: places in a lenient JSON schema that answers are not held to.
    weight: bytes that it takes, about.
    forces: whether an answer is told what it leaves no choice for.
    """

    def __init__(
        self,
        matcher: LLMatcher,
        vocab_size: int,
        weight: int,
        passed: tuple[str, ...] = (),
        forces: bool = False,
    ) -> None:
        self.passed = passed
        self.weight = weight
        self.forces = forces
        self._matcher = matcher
        self._vocab_size = vocab_size

    def after(self, ids: Sequence[int], seconds: float = math.inf) -> CompiledGrammar:
        """Return what may follow the beginning of an answer, in ids that were given.

        Raises ValueError for one with which no answer begins, and for a whole one; TimeoutError
        where it takes longer than `seconds`, as a long one may.
        """
        matcher, until = self._matcher.deep_copy(), time.monotonic() + seconds
        for start in range(0, len(ids), _AT_ONCE):
            if start and time.monotonic() >= until:
                raise TimeoutError(f"{start} of {len(ids)} ids were read in {seconds} s")
            if not matcher.consume_tokens(list(ids[start : start + _AT_ONCE])):
                raise ValueError("no answer of the form that is asked for begins like that")
        if matcher.is_stopped():
            raise ValueError("the answer that was begun is whole already")
        return CompiledGrammar(matcher, self._vocab_size, self.weight, self.passed, self.forces)

    def constraint(self, end_ids: Iterable[int]) -> GrammarConstraint:
        """Begin an answer. end_ids: what ends it, besides its own end."""
        matcher = self._matcher.deep_copy()
        return GrammarConstraint(matcher, self._vocab_size, frozenset(end_ids), self.forces)


class Grammars:
    """Compile grammars for a tokenizer, and remember those used last. Any thread may ask.

    Needs llguidance, which comes with griffin-lm[serve]: ValueError where it is missing.
    """

    def __init__(self, tokenizer: Tokenizer, kept: int = KEPT) -> None:
        self.tokenizer = tokenizer
        self._kept = kept
        self._compiled: OrderedDict[Grammar, CompiledGrammar] = OrderedDict()
        self._tokens: LLTokenizer | None = None
        self._lock = threading.Lock()

    def compile(self, grammar: Grammar) -> CompiledGrammar:
        """Return a grammar ready for use: milliseconds, some tenths of a second for a huge one.

        The first call prepares the tokenizer, about a second for 256,000 ids.
        Raises ValueError for a grammar that is wrong, that no text fits, that cannot be held to, or
        that is too complex.
        """
        with self._lock:
            found = self._compiled.get(grammar)
            if found is None and self._tokens is None:
                self._tokens = prepare(self.tokenizer)
        if found is None:  # beside others: one that takes long keeps nobody waiting
            found = self._compile(grammar)
        with self._lock:
            found = self._compiled.setdefault(grammar, found)
            self._compiled.move_to_end(grammar)
            while len(self._compiled) > self._kept or self._heavy():
                self._compiled.popitem(last=False)
            return found

    def _heavy(self) -> bool:
        """Return whether several are kept that are heavy together."""
        held = sum(compiled.weight for compiled in self._compiled.values())
        return held > KEPT_BYTES and len(self._compiled) > 1

    def _compile(self, grammar: Grammar) -> CompiledGrammar:
        llguidance = _library()
        source, passed = grammar.text, ()
        if grammar.kind == "regex":
            source = llguidance.LLMatcher.grammar_from_regex(source)
        elif grammar.kind == "ebnf":
            source = _lark_of(grammar)
        elif grammar.kind == "json":
            try:
                source, passed = hold(source)
            except ValueError as error:
                raise ValueError(f"{grammar.name} cannot be used: {error}") from None
            source = llguidance.LLMatcher.grammar_from_json_schema(source)
        matcher = self._matcher(grammar, source)
        forced = len(matcher.compute_ff_bytes())
        if forced > _MOST_FORCED:
            raise ValueError(
                f"{grammar.name} leaves no choice for {forced:,} bytes at the beginning of an"
                f" answer; {_MOST_FORCED:,} are allowed"
            )
        weight = _CHARACTER_BYTES * len(source) + _FORCED_BYTES * forced
        # Rules that are written down may leave no choice for ever; see _NO_FORCING.
        forces = grammar.kind != "ebnf"
        return CompiledGrammar(matcher, self.tokenizer.vocab_size, weight, passed, forces)

    def _matcher(self, grammar: Grammar, source: str) -> LLMatcher:
        llguidance, tokens = _library(), self._tokens
        assert tokens is not None
        limits: LLParserLimits = llguidance.LLParserLimits(**_LIMITS)
        matcher = llguidance.LLMatcher(tokens, source, log_level=0, limits=limits)
        if error := matcher.get_error():
            raise ValueError(f"{grammar.name} cannot be used: {brief(error)}")
        begun = int.from_bytes(matcher.compute_bitmask(), "little")
        if error := matcher.get_error():  # that nothing can come first, or one of the limits
            raise ValueError(
                f"{grammar.name} allows no text at all, or is too complex: {brief(error)}"
            )
        if not begun & ~(1 << self.tokenizer.eos_id):
            raise ValueError(f"{grammar.name} allows no text at all")
        return matcher


class _Pieces:
    """A tokenizer as llguidance asks for one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        vocabulary = tokenizer.vocabulary
        self.eos_token_id = tokenizer.eos_id
        self.bos_token_id = tokenizer.bos_id
        # Control tokens are named apart from text, or the text "<eos>" would allow them. Holes have
        # no bytes.
        self.tokens: Sequence[bytes] = [
            b"" if piece is None else vocabulary.token_bytes(id)
            for id, piece in enumerate(vocabulary.pieces)
        ]
        self.special_token_ids = sorted(tokenizer.control_ids)
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, bos=False)


def prepare(tokenizer: Tokenizer) -> LLTokenizer:
    """Return a tokenizer as llguidance wants it; ValueError without llguidance."""
    llguidance = _library()
    pieces = _Pieces(tokenizer)
    wrapped = llguidance.TokenizerWrapper(pieces)
    made = llguidance.LLTokenizer(wrapped, n_vocab=tokenizer.vocab_size, eos_token=tokenizer.eos_id)
    wrapped.tokens = pieces.tokens = ()  # it keeps the wrapper, but has copied these
    return made


@lru_cache(maxsize=128)
def hold(source: str) -> tuple[str, tuple[str, ...]]:
    """Return what llguidance is given for a `json_source`, and the places that it leaves out.

    Raises ValueError, which names the place, for a schema that nothing fits; for what cannot be
    held to, if the source is not lenient.
    """
    llguidance = _library()
    schema = json.loads(source)
    options = schema.pop("x-guidance")
    limits = llguidance.LLParserLimits(**_LIMITS)

    def written(part: dict[str, Any]) -> str:
        return json.dumps({**part, "x-guidance": options})

    def check(part: dict[str, Any]) -> str:
        made = llguidance.LLMatcher.grammar_from_json_schema(written(part))
        return brief(llguidance.LLMatcher.validate_grammar(made, limits=limits))

    try:
        held = HeldSchema(schema, lenient=options["lenient"])
        options |= {"lenient": False, "coerce_one_of": False, "json_allowed_escapes": held.escapes}
        mend(held, check)
        held.settle()
    except RecursionError:
        raise ValueError("it has too many levels") from None
    return written(held.whole()), tuple(held.passed)


def _lark_of(grammar: Grammar) -> str:
    """Return rules in Lark, their schemas as `hold` has them; ValueError for what is none."""
    text = grammar.text
    if text.lstrip().startswith("{"):  # a list of grammars in JSON, which llguidance would take
        raise ValueError(
            f"{grammar.name} cannot be used: it is JSON; write rules, or send a schema"
        )
    try:
        gbnf = "::=" in text and not _START.search(text)
        return _with_schemas_held(_lark_of_gbnf(text) if gbnf else text) + _NO_FORCING
    except RecursionError:
        raise ValueError(f"{grammar.name} cannot be used: it has too many levels") from None
    except Exception as error:  # plain ones of GBNF, and IndexError for some of what is cut short
        why = brief(str(error)) if str(error) else type(error).__name__
        raise ValueError(f"{grammar.name} cannot be used: {why}") from None


def _lark_of_gbnf(text: str) -> str:
    _library()
    from llguidance.gbnf_to_lark import gbnf_to_lark

    return gbnf_to_lark(_ESCAPED.sub(_character, text))


def _with_schemas_held(text: str) -> str:
    """Return Lark whose schemas cost no more than others: a step of 999,983 took a minute."""
    parts, at = list[str](), 0
    while found := _SCHEMA.search(text, at):
        try:
            schema, end = json.JSONDecoder().raw_decode(text, found.end())
        except ValueError:
            schema, end = None, 0
        if not isinstance(schema, dict):
            raise ValueError("after %json stands a JSON schema, which is an object")
        parts += text[at : found.start()], "%json ", hold(json_source(schema))[0]
        at = end
    return "".join([*parts, text[at:]])


def _character(escaped: re.Match[str]) -> str:
    """Return what an escaped character is in Lark, which has no such numbers in patterns."""
    digits = escaped[1] or escaped[2]
    code = int(digits, 16) if digits else 0
    if not digits or code > 0x10FFFF or 0xD800 <= code < 0xE000:
        return escaped[0]
    return f"\\x{code:02x}" if code < 0x80 else chr(code)


def _library() -> Any:
    try:
        import llguidance
    except ImportError:
        raise ValueError(
            "structured output needs llguidance: pip install 'griffin-lm[serve]'"
        ) from None
    return llguidance
