"""Masks against an oracle without a grammar: a choice allows a token if some text goes on with its
bytes."""

from __future__ import annotations

import json
import random
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from griffin.grammar import Grammar, Grammars
from griffin.sampling import ConstraintError

CHOICES = [
    ("yes", "no", "yes please", "yesterday"),
    ("<eos>", "<end_of_turn>x", "<bos", "<0x41>", "▁a"),
    (" a", "  a", "a b", "\n\n", "\t", "\x00", "\x7f"),
    ("é", "è", "☃", "🦉🦉", "\u2028", "ä́"),
    ('a"b', "a\\b", "/x/", "a|b", "(", "[]{}^$.*+?", "#c", "//", '"i'),
]


def ends(grammars: Grammars) -> set[int]:
    tokenizer = grammars.tokenizer
    return {tokenizer.eos_id, tokenizer.end_of_turn_id or tokenizer.eos_id}


def expected(grammars: Grammars, texts: list[bytes], said: bytes) -> set[int]:
    """Return the ids that may come next, one by one."""
    tokenizer = grammars.tokenizer
    ids = {
        id
        for id in range(tokenizer.vocab_size)
        if id not in tokenizer.control_ids
        and tokenizer.vocabulary.pieces[id] is not None
        and any(text.startswith(said + tokenizer.token_bytes(id)) for text in texts)
    }
    return ids | (ends(grammars) if said in texts else set())


def marked(constraint) -> set[int]:
    return set(constraint.allowed().nonzero().squeeze(1).tolist())


def check_walk(grammars: Grammars, choices: tuple[str, ...], chance: random.Random) -> None:
    """Go a random way through a choice, and hold every mask against the oracle."""
    texts = [text.encode() for text in choices]
    constraint = grammars.compile(Grammar.choice(*choices)).constraint(ends(grammars))
    said = b""
    while True:
        allowed, possible = marked(constraint), expected(grammars, texts, said)
        assert allowed and allowed <= possible, said
        following = {text[len(said)] for text in texts if text.startswith(said) and text != said}
        # What must come is allowed in the one way in which the tokenizer itself would cut it.
        assert allowed == possible or (len(following) == 1 and said not in texts), said
        id = chance.choice(sorted(allowed))
        over = constraint.accept(id)
        if id in ends(grammars):
            assert over and said in texts
            return
        said += grammars.tokenizer.token_bytes(id)
        assert over == (said in texts and not any(t != said and t.startswith(said) for t in texts))
        if over:
            return


@pytest.mark.parametrize("choices", CHOICES, ids=lambda c: c[0])
def test_masks_are_exact(grammars, choices):
    for seed in range(2):
        check_walk(grammars, choices, random.Random(seed))


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    choices=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6), min_size=1
    ),
    seed=st.integers(0, 99),
)
def test_masks_are_exact_for_any_texts(grammars, choices, seed):
    check_walk(grammars, tuple(choices), random.Random(seed))


def test_what_is_not_allowed_is_not_taken(grammars):
    constraint = grammars.compile(Grammar.choice("yes")).constraint(ends(grammars))
    wrong = min(set(range(grammars.tokenizer.vocab_size)) - marked(constraint) - ends(grammars))
    with pytest.raises(ConstraintError):
        constraint.accept(wrong)


def test_an_end_that_is_text_elsewhere_stands_only_at_the_end(grammars):
    """generation_config.json may name a line break as an end."""
    (line,) = grammars.tokenizer.encode("\n", bos=False)
    constraint = grammars.compile(Grammar.regex("a\nb(\n)?")).constraint({line})
    for id in grammars.tokenizer.encode("a", bos=False):
        constraint.accept(id)
    assert line not in marked(constraint)


def test_answers_do_not_share_a_place(grammars):
    compiled = grammars.compile(Grammar.choice("ab", "cd"))
    one, other = compiled.constraint(ends(grammars)), compiled.constraint(ends(grammars))
    for id in grammars.tokenizer.encode("a", bos=False):
        one.accept(id)
    assert {grammars.tokenizer.token_bytes(id) for id in marked(one)} == {b"b"}
    assert marked(other) == expected(grammars, [b"ab", b"cd"], b"")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: Grammar.json_schema({"type": "array", "uniqueItems": True}),
            "the JSON schema cannot be used: ",
        ),
        (lambda: Grammar.json_schema({"type": "string", "format": "owl"}), "JSON schema cannot"),
        (
            lambda: Grammar.json_schema({"type": "integer", "minimum": 3, "maximum": 2}),
            "JSON schema cannot",
        ),
        (lambda: Grammar.json_schema({"$ref": "http://127.0.0.1/x"}), "JSON schema cannot"),
        (lambda: Grammar.json_schema({"$ref": "#"}), "allows no text"),
        (lambda: Grammar.json_schema(False), "JSON schema cannot"),
        (lambda: Grammar.json_schema({"a": {1}}), "only what JSON does"),
        (lambda: Grammar.json_schema([]), "is an object, not"),
        (
            lambda: Grammar.json_schema({"type": "integer", "multipleOf": 999999937}),
            "JSON schema cannot",
        ),
        (lambda: Grammar.regex("(a"), "the regular expression cannot be used: "),
        (lambda: Grammar.regex(r"(a)\1"), "regular expression cannot"),
        (lambda: Grammar.regex(""), "is a string that is not empty"),
        (lambda: Grammar.regex("(|b){0}"), "allows no text"),
        (lambda: Grammar.regex("a{100000}"), "no choice for 100,000 bytes"),
        (lambda: Grammar.choice(), "at least one"),
        (lambda: Grammar.choice("a", ""), "not empty"),
        (lambda: Grammar.lark("start: owl"), "the grammar cannot be used: "),
        (lambda: Grammar.lark(" "), "with a rule `start`"),
        (lambda: Grammar.ebnf("root ::= owl"), "the grammar cannot be used: Rule 'owl' not found"),
        (lambda: Grammar.ebnf("owl ::= 'x'"), "the grammar cannot be used: "),
        (lambda: Grammar.ebnf('root ::= "\\'), "the grammar cannot be used: "),
        (lambda: Grammar.ebnf("root ::= " + "(" * 9000), "too many levels"),
        (lambda: Grammar.ebnf("root ::= root"), "allows no text"),
        (lambda: Grammar.ebnf(""), "with a rule `start`"),
        (
            lambda: Grammar.ebnf('start: %json {"type": "integer", "multipleOf": 999983}'),
            "the digits of all come to more",
        ),
        (lambda: Grammar.ebnf('start: %json "a"'), "after %json stands a JSON schema"),
        (lambda: Grammar.ebnf(' {"grammars": [{"json_schema": {}}]}'), "it is JSON; write rules"),
    ],
)
def test_what_cannot_be_held_to_is_refused(llm, make, said):
    with pytest.raises(ValueError, match=said):
        llm.grammars.compile(make())


def test_our_options_are_not_the_schemas():
    """What a request brings along must not loosen the grammar."""
    loose = {
        "x-guidance": {"lenient": True, "whitespace_flexible": True},
        "type": "string",
        "not": {},
    }
    assert json.loads(Grammar.json_schema(loose).text)["x-guidance"]["lenient"] is False


def test_blanks_end(grammars):
    """A model that writes spaces, and nothing but spaces, comes to where none is allowed."""
    constraint = grammars.compile(Grammar.json_object()).constraint(ends(grammars))
    for id in grammars.tokenizer.encode("{", bos=False):
        constraint.accept(id)
    blank = [i for i in marked(constraint) if grammars.tokenizer.token_bytes(i).isspace()]
    written = 0
    while blank:
        id = min(blank, key=lambda i: len(grammars.tokenizer.token_bytes(i)))
        constraint.accept(id)
        written += 1
        blank = [i for i in marked(constraint) if grammars.tokenizer.token_bytes(i).isspace()]
    assert 1 <= written <= 33


def test_those_used_last_are_remembered(llm):
    grammars = Grammars(llm.tokenizer, kept=2)
    a, b = grammars.compile(Grammar.choice("a")), grammars.compile(Grammar.choice("b"))
    assert grammars.compile(Grammar.choice("a")) is a
    grammars.compile(Grammar.choice("c"))
    assert (
        grammars.compile(Grammar.choice("a")) is a
        and grammars.compile(Grammar.choice("b")) is not b
    )


def test_rules_that_leave_no_choice_are_not_gone_through_ahead(llm):
    """It took 8 s and 430 MB of the engine's thread, and with longer terminals hours."""
    rules = "start: q x{1000}\nq: /[bc]/\nx: y{1000}\ny: /a{1000}/\n%llguidance {}"
    answer = llm.grammars.compile(Grammar.ebnf(rules)).constraint(())
    answer.accept(llm.tokenizer.encode("b", bos=False)[0])
    texts = map(llm.tokenizer.token_bytes, range(llm.tokenizer.vocab_size))
    fit = [id for id, text in enumerate(texts) if text and not text.strip(b"a")]
    assert len(fit) > 1 and answer.allowed().nonzero().flatten().tolist() == fit


def test_a_long_beginning_of_an_answer_has_its_time(llm):
    whole, ids = llm.grammars.compile(Grammar.lark("start: /b*/")), []
    while len(ids) < 300:
        ids += llm.tokenizer.encode("b", bos=False)
    assert whole.after(ids).constraint(()).allowed().any()
    assert whole.after(ids[:200], seconds=0).constraint(()).allowed().any()
    with pytest.raises(TimeoutError, match="256 of 300 ids"):
        whole.after(ids, seconds=0)


def test_without_the_library_it_is_said_what_to_install(llm, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ValueError, match=r"pip install 'griffin-lm\[serve\]'"):
        Grammars(llm.tokenizer).compile(Grammar.choice("a"))
