"""What is proposed, and how much of it is worth a call."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest

import griffin
from griffin.bench.draft import Recording, recordings
from griffin.engine import draft_length
from griffin.engine import drafter as module
from griffin.engine.draft_length import FORCED, Costs, Odds, costs_of, deeper, lengths, measure
from griffin.engine.drafter import GIVEN, LONGEST, Drafter
from griffin.ops import native
from griffin.sampling.params import MOST_DRAFTS
from tests.support.toy_engine import make_model
from tests.support.toy_folder import write_toy


def slowly(ids: list[int], most: int) -> tuple[list[int], int]:
    """Say the same by looking through the whole text."""
    for n in range(min(LONGEST, len(ids) - 1), 1, -1):
        for end in range(len(ids) - 1, n - 1, -1):
            if ids[end - n : end] == ids[-n:]:
                told = [*ids[end:]]
                while len(told) < most:
                    told.append(told[len(told) - (len(ids) - end)])
                return told[:most], n
    return [], GIVEN


@pytest.mark.parametrize("letters", [2, 5, 40])
def test_it_finds_what_stood_behind_the_longest_and_newest_match(letters: int) -> None:
    draw = random.Random(letters)
    text = [draw.randrange(letters) for _ in range(150)]
    for begin in (0, 1, 60):  # learnt at once, and token by token
        drafter = Drafter(text[:begin])
        for n in range(begin, len(text)):
            drafter.add(text[n])
            found = drafter.propose(12)
            assert (found.ids, found.match) == slowly(text[: n + 1], 12)
            assert drafter.propose(3).ids == found.ids[:3]


def test_a_prediction_is_told_from_its_beginning_and_again_behind_an_edit() -> None:
    told = list(range(100, 140))
    drafter = Drafter([1, 2, 3], told)
    assert drafter.propose(4) == (told[:4], GIVEN)
    for id in told[:10]:
        drafter.add(id)
    assert drafter.propose(4).ids == told[10:14]
    drafter.add(7)
    assert drafter.propose(4).ids == []
    drafter.add(told[12])
    drafter.add(told[13])
    assert drafter.propose(4) == (told[14:18], 2)
    for id in told[14:]:
        drafter.add(id)
    assert drafter.propose(4).ids == []  # what stands behind it is another text


def test_a_short_text_is_one_too() -> None:
    for length in range(12):
        drafter = Drafter([5] * length)
        told = drafter.propose(3)
        assert told.ids == ([5] * 3 if length > 2 else [])
        assert told.match == (min(LONGEST, length - 1) if length > 2 else GIVEN)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_TOKENS", 50)
    drafter = Drafter(list(range(200)))
    for n in range(500):
        drafter.add(n % 37)
        assert len(drafter._ids) <= 101
        if n > 80:
            assert drafter.propose(3).ids == [(n + k) % 37 for k in (1, 2, 3)]


def test_the_drafts_of_most_tokens_for_the_time_are_taken() -> None:
    sure, unsure = Odds(), Odds()
    for _ in range(200):
        sure.note(LONGEST, True)
        unsure.note(LONGEST, False)
    assert sure.of(LONGEST) > 0.99 and unsure.of(LONGEST) < 0.01
    cheap = Costs({1: 1.0, 8: 1.25, 16: 1.6})
    dear = Costs({1: 1.0, 8: 8.0})
    assert cheap.of(1) == 1 and cheap.of(8) == 1.25 and cheap.of(12) == pytest.approx(1.425)
    assert lengths([(15, LONGEST, sure)], cheap) == [15]
    assert lengths([(15, LONGEST, unsure)], cheap) == [0]
    assert lengths([(15, LONGEST, sure)], dear) == [0]
    assert lengths([(3, FORCED, Odds()), (3, LONGEST, unsure)], cheap) == [3, 0]
    # Where a call of many rows is no longer cheap, drafting stops by itself.
    steep = Costs({1: 1.0, 8: 1.1, 16: 20.0})
    assert sum(lengths([(4, 2, Odds())] * 8, steep)) == 0 < sum(lengths([(4, 2, Odds())], steep))


def test_a_call_that_was_made_corrects_what_was_measured() -> None:
    sure = Odds()
    for _ in range(200):
        sure.note(LONGEST, True)
    # A call of 256 tokens is reckoned at 51 times one of one, and took 80.
    costs, rows = Costs({1: 1.0, 8: 2.0, 16: 3.0}), [(15, LONGEST, sure)] * 16
    assert sum(lengths(rows, costs)) == 240
    costs.note(256, 80.0)
    costs.note(16, 3.0)
    assert costs.of(256) == 80 and costs.of(250) == pytest.approx(78, rel=0.05)
    assert sum(lengths(rows, costs)) < 48
    assert lengths(rows[:1], costs) == [15], "what one row is worth stays"
    # A neighbour of a size is told of it; one call that was disturbed moves it by little.
    costs.note(15, 100.0)
    assert 3.0 < costs.of(16) < 3.2
    for _ in range(100):
        costs.note(16, 3.0)
        costs.note(1, 1.0)
    assert costs.of(16) == pytest.approx(3.0, rel=0.01)
    # What was wrong when it was measured is mended; a size between takes what its neighbours say.
    for _ in range(100):
        costs.note(4, 1.2)
        costs.note(1, 1.0)
    assert costs.of(4) == pytest.approx(1.2, rel=0.01)


def test_a_slower_machine_is_no_dearer_size() -> None:
    """All calls take longer for a while, in which only calls of two are made."""
    costs = Costs({1: 1.0, 2: 1.25, 8: 2.0})
    for _ in range(8):
        costs.note(2, 2 * 1.25)
    assert costs.of(2) == pytest.approx(1.25, rel=0.1)
    for _ in range(8):
        costs.note(1, 1.0)
    assert costs.of(2) < 1.45
    for _ in range(2000):
        costs.note(1, 0.0)
    assert math.isfinite(costs.of(2)), "a clock that stands still"


def test_costs_are_measured_once_for_a_model() -> None:
    model = make_model()
    costs = costs_of(model)
    assert costs is costs_of(model) and costs.of(1) == 1 and {1, 8} <= set(costs.seconds)
    assert all(costs.of(n) <= costs.of(n + 1) + 1e-9 for n in range(1, 40))
    assert measure(model, 0).of(8) >= 1
    with pytest.raises(ValueError, match="1 and of more"):
        Costs({1: 1.0})


def test_a_first_call_of_a_size_says_nothing_of_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """It meets new memory, and at 2B one call is longer than all the time there is to measure."""
    clock, met = [0.0], set[int]()

    def call(_: object, size: int, state: object) -> object:
        clock[0] += (1 + size / 8) * (1 if size in met else 2)
        met.add(size)
        return state

    monkeypatch.setattr(draft_length, "_call", call)
    monkeypatch.setattr(draft_length.time, "perf_counter", lambda: clock[0])
    assert measure(make_model()).of(8) == pytest.approx(2 / 1.125)


@pytest.mark.skipif(not native.built(), reason="the native kernels are not built")
def test_costs_are_measured_before_the_first_answer_that_may_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_toy(tmp_path / "toy")
    told: list[object] = []
    monkeypatch.setattr(
        draft_length, "measure", lambda model: told.append(model) or Costs({1: 1.0, 2: 1.0})
    )
    llm = griffin.load(folder, device="cpu", quantize="int8")
    llm.score("x y")
    llm.generate("x", max_tokens=1, draft=0)
    assert not told, "nobody drafts"
    for _ in range(2):
        llm.generate("x", max_tokens=1)
    assert told == [llm.model], "once"
    griffin.load(folder, device="cpu").generate("x", max_tokens=1)
    assert told == [llm.model], "it does not draft by itself"


# What calls of several tokens cost beside one: int8 and int4, with VNNI and with AVX2 alone.
COSTS = [
    {1: 1.0, 2: 1.05, 4: 1.12, 8: 1.37, 16: 2.5},
    {1: 1.0, 2: 1.12, 4: 1.3, 8: 1.7, 16: 3.0},
    {1: 1.0, 2: 1.16, 4: 1.52, 8: 2.17, 16: 4.1},
    {1: 1.0, 2: 1.23, 4: 1.7, 8: 2.9, 16: 5.6},
]


@pytest.mark.parametrize("encoding", ["words", "bytes"])
@pytest.mark.parametrize("seconds", COSTS, ids=["int8", "int8-avx2", "int4", "int4-avx2"])
def test_a_short_text_is_not_slower_for_its_drafts(
    seconds: dict[int, float], encoding: str
) -> None:
    """As if the model had chosen it. Before its odds are learned, in 32 tokens, no more is lost
    than one call of one token; in 300 nothing, on a machine that changes all the time too."""
    words = griffin.load("nano").tokenizer

    def encode(text: str, bos: bool = True) -> list[int]:
        return list(text.encode()) if encoding == "bytes" else words.encode(text, bos=bos)

    for text in recordings(encode, words.vocab_size, prompt=64, tokens=364):
        assert 32 / _faster(text.cut(32), seconds, lambda: 1.0) <= 33, text.name
        moods = (_faster(text, seconds, partial(next, _moods(seed))) for seed in range(8))
        assert statistics.mean(moods) >= 0.995, text.name


def _moods(seed: int) -> Iterator[float]:
    """Yield by how much calls are disturbed: by what goes on for some of them, and one by one."""
    random, long = Random(seed), 0.0
    while True:
        long = 0.85 * long + 0.08 * random.gauss(0, 1)
        yield math.exp(long + abs(random.gauss(0, 0.05))) * (1.5 if random.random() < 0.05 else 1)


def _faster(text: Recording, seconds: dict[int, float], disturbed: Callable[[], float]) -> float:
    """Return how many times as fast a text is with drafts, by what calls cost.

    disturbed: how many times as long as that a call is seen to take.
    """
    true, costs = Costs(seconds), Costs({size: seconds[size] for size in (1, 8)})
    drafter, odds, answer = Drafter(text.ids[: text.prompt]), Odds(), text.ids[text.prompt :]
    took, at = 0.0, 0
    while at < len(answer):
        ids, match = drafter.propose(MOST_DRAFTS)
        ids = ids[: len(answer) - at - 1]
        (count,) = lengths([(len(ids), match, odds)], costs)
        took += true.of(1 + count)
        costs.note(1 + count, true.of(1 + count) * disturbed())
        for n in range(count + 1):
            right = n < len(ids) and ids[n] == answer[at]
            if n < len(ids):
                odds.note(match, right)
            drafter.add(answer[at])
            match, at = deeper(match), at + 1
            if not right:
                break
    return len(answer) / took
