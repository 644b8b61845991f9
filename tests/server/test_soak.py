"""Short soaks, and that a soak would see what is wrong; `python -m tools.soak_server` for the
whole."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from griffin.sessions import Store
from tests.support.live_server import NAME, serving
from tools.soak_server.rounds import kill_often, soak
from tools.soak_server.talk import Said, Talk
from tools.soak_server.visit import Asked
from tools.soak_server.wire import Heard


def test_what_is_wrong_is_seen_in_a_session(llm, tmp_path):
    talk = Talk("t", made=True)
    with serving(llm, tmp_path) as live:
        for n in range(2):
            sampling: dict[str, Any] = {"seed": n, "max_tokens": 6, "temperature": 1.0}
            messages: list[Any] = [{"role": "user", "content": f"number {n}"}]
            answer = live.openai().chat.completions.create(
                model=NAME, messages=messages, extra_body={"session_id": "t"}, **sampling
            )
            text = answer.choices[0].message.content
            talk.said.append(Said(messages[0]["content"], sampling, text, whole=True))
    with Store(tmp_path) as store:
        assert talk.check(store, llm) == 2
        cut = copy.deepcopy(talk)
        cut.said[1].whole, cut.said[1].heard = False, cut.said[1].heard[:2]
        cut.said.append(Said("never read", {}, "", whole=False))
        assert cut.check(store, llm) == 2
        for change, said in (
            (lambda t: t.said.append(Said("more", {}, "x", whole=True)), "has lost"),
            (lambda t: t.said.pop(), "nobody said"),
            (lambda t: setattr(t.said[0], "heard", "x"), "was told"),
            (lambda t: t.said[1].sampling.update(seed=7), "t"),  # another answer than the model's
            (lambda t: setattr(t, "name", "u"), "is lost"),
        ):
            wrong = copy.deepcopy(talk)
            change(wrong)
            with pytest.raises(AssertionError, match=said):
                wrong.check(store, llm)


def test_what_is_wrong_is_seen_in_an_answer(llm):
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "seed": 1,
        "max_tokens": 6,
        "temperature": 1.0,
    }
    body |= {"top_k": 0, "stop": (), "logprobs": True}
    alone = [llm.chat(body["messages"], seed=1 + n, max_tokens=6, logprobs=0) for n in range(2)]
    right = Heard(
        [a.text for a in alone], [list(a.logprobs) for a in alone], ["length"] * 2, whole=True
    )
    assert [a.finish_reason for a in alone] == ["length"] * 2 and Asked(body, 2, right).check(
        llm
    ) == 2
    for change in (
        lambda heard: heard.texts.reverse(),
        lambda heard: heard.finishes.__setitem__(1, "stop"),
        lambda heard: heard.logprobs[0].__setitem__(2, heard.logprobs[0][2] + 1e-9),
    ):
        wrong = copy.deepcopy(right)
        change(wrong)
        with pytest.raises(AssertionError):
            Asked(body, 2, wrong).check(llm)


@pytest.mark.slow
def test_many_clients_for_some_seconds(tmp_path):
    done = soak(tmp_path, 20, clients=64, seed=1)
    for what in (
        "answers compared",
        "turns compared",
        "left in the prompt",
        "left in the answer",
        "forks",
    ):
        assert done[what] >= 10, f"{done}: this shows too little"


@pytest.mark.slow
def test_killed_twice_under_load(tmp_path):
    done = kill_often(tmp_path, 2, clients=32, seed=1)
    assert done["turns compared"] >= 20 and done["broken off"] >= 20, (
        f"{done}: this shows too little"
    )
