"""The engine beside the plain loop, and long conversations: what is done, and what is said of
it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from griffin.bench import conversation as talks
from griffin.bench import engine as engines
from griffin.bench.ours import Ours
from griffin.bench.program import Options
from griffin.bench.rows import Rows
from griffin.bench.talk import Talk
from tests.bench.test_suites import plan
from tests.support.layers import recurrent


@pytest.fixture
def ours(folder) -> Ours:
    return Ours(Options(model=str(folder), format="stored", threads=1, chunk=16))


def read(ours: Ours, length: int) -> None:
    ours.forget(1, length)
    ours.read(
        torch.randint(10, 400, (1, length), generator=torch.Generator().manual_seed(0)).numpy()
    )


def test_rows_take_the_tokens_that_the_plain_loop_takes(ours):
    read(ours, 20)
    rows = Rows(ours, 3)
    assert rows.decode(4, 1) > 0 and rows.decode(4, 3) > 0
    for context in rows._starts:
        read(ours, 20)
        begun = int(context.state.pos[0]) - 20
        assert begun >= 4
        for _ in range(begun):
            ours.step()
        own, token = ours.standing()
        assert (token,) == context.pending
        assert torch.equal(recurrent(own).lru, recurrent(context.state).lru)


def test_engine_and_plain_loop_in_turns(folder, here):
    run = plan(folder)
    found: list[Any] = list(engines.engine(run, requests=3, context=20))
    assert [(m.what, m.batch, len(m.samples)) for m in found] == [
        ("decode", 1, 2),
        ("engine", 1, 2),
        ("engine", 3, 2),
    ]
    assert found == run.report.measurements and all(m.ratio and m.tokens_per_second for m in found)
    assert found[1].bytes_per_token == found[0].bytes_per_token > found[2].bytes_per_token
    (said,) = run.report.notes
    assert re.fullmatch(
        r"float32: a step of the engine takes [+-][\d.]+% beside the plain loop's; "
        r"3 requests together get [\d.]+ times the tokens/s of one",
        said,
    )


def test_what_is_said_compares_within_rounds():
    speeds = {
        ("decode", 1): [10.0, 20.0, 40.0],
        ("engine", 1): [8.0, 16.0, 40.0],
        ("engine", 8): [32, 80, 200.0],
    }
    said = engines.note("int8", speeds, 8)
    assert "takes +25.0% beside" in said and "8 requests together get 5.00 times" in said
    assert "together" not in engines.note("int8", speeds, 1)


@pytest.mark.parametrize(("cold", "read"), [(None, 200), (40, 40)])
def test_a_conversation_is_gone_on_with_in_every_way(folder, here, cold, read):
    run = plan(folder)
    found = {
        m.what.removeprefix("conversation, "): m for m in talks.conversation(run, 200, 7, cold)
    }
    assert list(found) == ["cold", "prefix cache", "session", "restart"]
    assert all(
        m.seconds > 0 and m.context == 200 and m.tokens_per_second is None for m in found.values()
    )
    assert [len(m.samples) for m in found.values()] == [1, 2, 2, 2]
    (said,) = run.report.notes
    assert said.startswith("float32: first token 7 tokens after 200: cold ")
    assert (f"(reckoned from {read})" in said) == (read < 200)


def test_a_conversation_that_was_not_read_to_its_end_is_where_it_would_be(ours, tmp_path):
    talk = Talk(ours, tmp_path / "a")
    # A window of 32 at least, and 160 are five turns of the ring.
    assert talk.begin(201, 5)["tokens"] == 41
    seconds, token = talk.by_cache(7, 1)
    assert seconds > 0 and talk.by_session(7, 1)[1] == token
    again = Talk(ours, tmp_path / "a")
    assert again.by_session(7, 1)[1] == token
    with again._store.open("talk", again._mark) as session:
        assert session.tokens == 202 and int(session.resume().state.pos[0]) == 201
    again._ids = talk._ids
    with pytest.raises(RuntimeError, match="the prefix cache spared 0 tokens of 201"):
        again.by_cache(7, 1)


def test_ways_that_answer_differently_are_not_compared(folder, here, monkeypatch):
    monkeypatch.setattr(Talk, "by_session", lambda *_: (1.0, -1))
    with pytest.raises(RuntimeError, match="the answer by session begins otherwise"):
        list(talks.conversation(plan(folder), 50, 7, None))
