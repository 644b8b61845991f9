"""Answers behind a screen: the same bits in any company, and all of the head for who needs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from griffin.engine import Engine, Event, Request, score
from griffin.model import Griffin
from griffin.model.screen import unembed_best
from griffin.ops import native
from griffin.quant import add_screen, quantize_model
from griffin.sampling import Sampler, SamplingParams
from tests.support.toy_engine import CHUNK, CONFIG, ask, ids, make_model, plain, run

V = 512
WIDER = CONFIG.replace(vocab_size=V)  # 32 panels, of which eight are read whole
needs_native = pytest.mark.skipif(not native.built(), reason="the native kernels are not built")


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def models() -> tuple[Griffin, Griffin]:
    """One with a screen, one without."""
    made = [quantize_model(make_model(WIDER).to(torch.bfloat16), "int8") for _ in range(2)]
    return add_screen(made[0]), made[1]


def answers(model: Griffin, requests: list[Request], slots: int = 4) -> list[Any]:
    engine = Engine(model, slots, chunk=CHUNK, kept=20)
    tickets = [engine.submit(request) for request in requests]
    events = [event for event in run(engine) if isinstance(event, Event)]
    return [plain(e for e in events if e.index == ticket.number) for ticket in tickets]


SCREENED: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 0.7, "top_p": 0.95, "min_p": 0.05},
    {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 2.0, "top_k": 50, "min_tokens": 2},
]
DRAWN: list[dict[str, Any]] = [  # from all, or all but the tail: with three bits
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.95},
    {"temperature": 1.5, "top_k": 65},
    {"temperature": 0.7, "min_p": 0.04},
    {"temperature": 1.5, "min_p": 0.05},
]
NEED_ALL: list[dict[str, Any]] = [
    {"logprobs": 0},
    {"logit_bias": {7: 20.0}},
    {"repetition_penalty": 1.3},
    {"presence_penalty": 0.5},
    {"frequency_penalty": 0.5},
    {"allowed_ids": (1, 2, 3, 400)},
    {"suppress_ids": (5,)},
    {"begin_suppress_ids": (5,)},
]


@needs_native
@pytest.mark.parametrize("fields", NEED_ALL, ids=str)
def test_who_needs_the_whole_head_has_it(models, fields) -> None:
    """Among others that do not: each has the answer that it has alone."""
    screened, full = models
    own = ask(6, 1, 12, **({"temperature": 0.7, "min_p": 0.05} | fields))
    other = ask(9, 2, 12, temperature=0.0)
    (alone,) = answers(full, [own])
    third = ask(8, 3, 12, temperature=1.0)
    mine, theirs, drawn = answers(screened, [own, other, third])
    assert mine == alone
    assert [theirs] == answers(screened, [other]) != answers(full, [other])
    assert [drawn] == answers(screened, [third]) != answers(full, [third])


@needs_native
def test_a_constraint_has_the_whole_head(models) -> None:
    screened, full = models
    own = ask(6, 1, 12, temperature=0.0, constraint=Evens)
    assert answers(screened, [own]) == answers(full, [own])


class Evens:
    """Allows every second id."""

    def allowed(self) -> torch.Tensor:
        return torch.arange(V) % 2 == 0

    def accept(self, id: int) -> bool:
        return False


@needs_native
@pytest.mark.parametrize("fields", SCREENED + DRAWN, ids=str)
def test_alone_in_company_and_as_a_draft(models, fields) -> None:
    screened, _ = models
    prompts = [ids(5 + n, n) * 2 for n in range(6)]
    for draft in (0, 5):
        asked = [
            ask(ids=prompt, seed=n, max_tokens=20, draft=draft, **fields)
            for n, prompt in enumerate(prompts)
        ]
        together = answers(screened, asked, slots=6)
        if not draft:
            first = together
            assert [answers(screened, [one], slots=1)[0] for one in asked] == together
        assert together == first


@needs_native
def test_greedy_choices_are_those_of_the_best_logits(models) -> None:
    screened, _ = models
    (answer,) = answers(screened, [ask(6, 1, 15, temperature=0.0)])
    state, token = None, torch.tensor([ids(6, 1)])
    for id, logprob in answer:
        hidden, state = screened.trunk(token, state)
        logits = unembed_best(screened, hidden[:, -1])[0]
        assert id == int(logits.argmax())
        assert logprob == pytest.approx(float(logits.log_softmax(0)[id]), abs=1e-5)
        token = torch.tensor([[id]])


@needs_native
def test_scores_are_of_the_whole_head(models) -> None:
    screened, full = models
    assert torch.equal(score(screened, ids(30)), score(full, ids(30)))


@needs_native
def test_draws_are_from_all_logits_of_three_bits(models) -> None:
    screened, _ = models
    (answer,) = answers(screened, [ask(6, 1, 15, temperature=0.7, top_p=0.95)])
    state, token = None, torch.tensor([ids(6, 1)])
    own = Sampler(SamplingParams(temperature=0.7, top_p=0.95, seed=1), V)
    for id, logprob in answer:
        hidden, state = screened.trunk(token, state)
        sample = own.sample(unembed_best(screened, hidden[:, -1], bits=3)[0].float())
        assert (id, logprob) == (sample.id, sample.logprob)
        token = torch.tensor([[id]])


@needs_native
@pytest.mark.parametrize("fields", [SCREENED[0], DRAWN[0]], ids=str)
def test_beside_int4_with_a_head_of_int8(fields) -> None:
    made = [quantize_model(make_model(WIDER).to(torch.bfloat16), "int4", "int8") for _ in range(2)]
    screened, full = add_screen(made[0]), made[1]
    asked = [ask(5 + n, n, 12, **fields) for n in range(3)]
    together = answers(screened, asked)
    assert [answers(screened, [one])[0] for one in asked] == together != answers(full, asked)
    whole = [ask(5 + n, n, 12, **fields, logprobs=0) for n in range(3)]
    assert answers(screened, whole) == answers(full, whole)


def test_what_choices_look_at() -> None:
    for looks, many in (("largest", SCREENED), ("mass", DRAWN), ("each", NEED_ALL)):
        for fields in many:
            given = fields if looks != "each" else {"temperature": 0.7, "min_p": 0.05} | fields
            assert SamplingParams(**given).looks_at == looks, fields
