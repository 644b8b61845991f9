"""Texts replayed with and without drafts."""

from __future__ import annotations

import copy
import json

import pytest
from click.testing import CliRunner

from griffin.bench.draft import Recording, replay, tokens_within
from griffin.bench.texts import excerpts
from griffin.cli import main
from griffin.engine.draft_length import Costs
from griffin.model.packed import Screen
from griffin.ops import native
from griffin.quant import add_screen
from tests.support.drafting import packed
from tests.support.toy_engine import ids

needs_native = pytest.mark.skipif(not native.built(), reason="the native kernels are not built")


@needs_native
def test_a_text_is_replayed_to_its_end_whatever_the_model_would_say() -> None:
    model, text = packed("int8"), ids(80, 3)
    for rows in (1, 3):
        told = replay(model, Recording("again", text, 8, text[8:]), rows)
        assert (told.tokens, told.rows) == (72, rows)
        assert told.calls <= 71 and told.accepted <= told.proposed
        assert told.calls * rows >= 71 * rows - told.accepted
        assert told.faster == told.plain / told.drafted > 0
    with pytest.raises(ValueError, match="leaves no answer"):
        replay(model, Recording("short", text[:9], 8))


@needs_native
def test_another_model_reads_without_drafts_and_a_screen_is_looked_through(monkeypatch) -> None:
    looked = []
    forward = Screen.forward
    monkeypatch.setattr(
        Screen,
        "forward",
        lambda self, hidden, head, bits: looked.append(bits) or forward(self, hidden, head, bits),
    )
    text = Recording("again", ids(40, 3), 8)
    plain, screened = packed("int8"), add_screen(copy.deepcopy(packed("int8")))
    told = replay(screened, text, beside=plain)
    assert told.tokens == 32 and looked and set(looked) == {2}
    looked.clear()
    replay(plain, text)
    assert not looked


def test_answers_are_as_long_as_the_time_lets() -> None:
    """A call of one token takes a second, of eight two; what drafts save is not counted on."""
    costs = Costs({1: 1.0, 8: 2.0})
    texts = [Recording("a", ids(90), 8), Recording("b", ids(90), 16)]
    reading = 2 * (8 + 16) * 2 / 8
    assert tokens_within(reading + 4 * 20, texts, [1], costs) == 20
    assert tokens_within(9 * reading + 4 * 3 * 20, texts, [1, 8], costs) == 20
    assert [len(text.cut(20).ids) for text in texts] == [28, 36]
    with pytest.raises(ValueError, match="8 tokens of each take 44"):
        tokens_within(43, texts, [1], costs)


@needs_native
def test_the_verb_reports_costs_and_texts(tmp_path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one two three four five six seven " * 8)
    options = ["--text", str(file), "--prompt", "4", "--tokens", "40", "--rows", "1", "--json"]
    done = CliRunner().invoke(main, ["bench", "draft", *options])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["cost"]["1"] == 1 and [each["name"] for each in told["texts"]] == [
        "a.txt",
        "a.txt again",
    ]
    assert all(each["tokens"] == 36 for each in told["texts"])
    assert told["format"] == "bf16-packed" and told["beside"] is None
    assert {"command", "commit", "machine"} <= told.keys()
    assert all(each["plain_rate"] == each["tokens"] / each["plain"] for each in told["texts"])
    table = CliRunner().invoke(main, ["bench", "draft", *options[:-1], "--minutes", "5"])
    assert table.exit_code == 0, table.output
    last = table.stdout.splitlines()[-1]
    assert last.startswith("a.txt again") and last.split()[2:4] == ["1", "36"]
    short = CliRunner().invoke(main, ["bench", "draft", *options, "--minutes", "0.0001"])
    assert short.exit_code == 2 and "give more --minutes" in short.stderr


@needs_native
@pytest.mark.thorough
def test_its_own_texts_are_of_every_kind_for_one_row_and_several() -> None:
    """An edit writes what stands before it again, and is told by it."""
    options = ["--prompt", "30", "--tokens", "50", "--rows", "1", "--rows", "2", "--json"]
    done = CliRunner().invoke(main, ["bench", "draft", *options])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)["texts"]
    kinds = ["English", "JSON", "Python", "edit", "random tokens"]
    assert [(each["name"], each["rows"]) for each in told] == [
        (kind, rows) for rows in (1, 2) for kind in kinds
    ]
    assert [each["tokens"] for each in told] == [20, 20, 20, 50, 20] * 2
    assert all(each["accepted"] <= each["proposed"] for each in told)


def test_texts_are_long_enough_for_what_is_measured() -> None:
    for kind, excerpt in excerpts().items():
        assert len(excerpt.answer) > 3000, kind
    assert excerpts() == excerpts()
    before, after = excerpts()["edit"]
    lines = {*before.splitlines()}
    kept = [line for line in after.splitlines() if line in lines]
    assert 0.7 < len(kept) / len(after.splitlines()) < 1
