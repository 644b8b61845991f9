"""What a grammar leaves no choice for is known beforehand, and read ahead."""

from __future__ import annotations

import random

import pytest

import griffin
from griffin.engine import Engine
from griffin.grammar import Grammar, Grammars
from griffin.llm import LLM
from griffin.ops import native
from griffin.sampling.constraint import Forcing
from tests.grammar.test_answers import PERSON, PLENTY, STRINGS, TREE, UNION
from tests.support.toy_engine import plain
from tests.support.toy_folder import write_toy

SCHEMAS = {"person": PERSON, "tree": TREE, "strings": STRINGS, "union": UNION}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    folder = write_toy(tmp_path_factory.mktemp("forced") / "toy")
    return griffin.load(folder, device="cpu", quantize="int8")


@pytest.mark.parametrize("schema", SCHEMAS)
def test_what_is_forced_comes(grammars: Grammars, schema: str) -> None:
    """Whichever allowed token is taken: forced ones are the only ones that are allowed."""
    compiled = grammars.compile(Grammar.json_schema(SCHEMAS[schema]))
    end, met = grammars.tokenizer.eos_id, 0
    for seed in range(5):
        chance, constraint = random.Random(seed), compiled.constraint([end])
        assert isinstance(constraint, Forcing)
        waiting: list[int] = []
        for _ in range(PLENTY):
            waiting = waiting or list(constraint.forced())
            allowed = constraint.allowed().nonzero().squeeze(1).tolist()
            if waiting:
                assert allowed == waiting[:1]
                met += 1
            id = chance.choice(allowed)
            waiting = waiting[1:]
            if constraint.accept(id):
                break
        assert constraint.forced() == []
    assert met > 0


def test_rules_that_are_written_down_force_nothing(grammars: Grammars) -> None:
    compiled = grammars.compile(Grammar.ebnf('root ::= "yes, of course"'))
    assert list(compiled.constraint([]).forced()) == []


@pytest.mark.skipif(not native.built(), reason="the native kernels are not built")
@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_are_the_same_in_fewer_calls(packed: LLM, schema: str, temperature: float) -> None:
    grammar = Grammar.json_schema(SCHEMAS[schema])
    found = []
    for draft in (0, 7):
        engine = Engine(packed.model, 2)
        requests = [
            packed.request(
                prompt, grammar=grammar, seed=1, max_tokens=60, draft=draft, temperature=temperature
            )
            for prompt in ("x", "import json\n")
        ]
        tickets = [engine.submit(request, keep_state=True) for request in requests]
        while not all(ticket.done for ticket in tickets):
            engine.step()
        found.append([plain(ticket.events()) for ticket in tickets])
        if draft and schema != "union":
            assert sum(ticket.accepted for ticket in tickets) > 0
    assert found[0] == found[1]
