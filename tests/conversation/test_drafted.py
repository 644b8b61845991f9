"""A kept conversation that is drafted is the one that is not: words, numbers, states, on the disk
too, wherever an answer ends and whatever is undone."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import griffin
from griffin.conversation import Conversation, begin, fingerprint_of
from griffin.engine import runners as started
from griffin.llm import LLM
from griffin.ops import native
from griffin.sampling.params import MOST_DRAFTS
from griffin.sessions import Store, UnknownTurn
from tests.conversation.test_conversation import equal
from tests.support.drafting import Told

_REASONS = {"stop", "length", "cancelled"}  # to end an answer: each comes in every run
needs_native = pytest.mark.skipif(not native.built(), reason="the native kernels are not built")


@pytest.fixture(scope="module", params=["int8", "int4", "bf16"])
def packed(request: pytest.FixtureRequest, folder: Path) -> LLM:
    return griffin.load(folder, device="cpu", dtype="bfloat16", quantize=request.param)


class Way:
    """A conversation on a store of its own."""

    def __init__(self, llm: LLM, home: Path) -> None:
        self.llm, self.home = llm, home
        self.store = Store(home)
        self.talk = Conversation(llm, begin(llm, self.store, "talk"))

    def restart(self) -> None:
        """Go on in another run of the program."""
        self.talk.close()
        self.store.close()
        self.store = Store(self.home)
        self.talk = Conversation(self.llm, self.store.open("talk", fingerprint_of(self.llm)))

    def move(self, what: str, sampling: dict[str, Any], number: int) -> Any:
        """Do something, and return what came of it."""
        talk = self.talk = Conversation(self.llm, self.talk.session, sampling=sampling)
        try:
            if what in ("undo", "redo"):
                turn = getattr(talk, what)()
                return turn and turn.number
            talking = {
                "say": lambda: talk.say(f"message {number}"),
                "go on": talk.go_on,
                "again": talk.regenerate,
            }[what]()
            said = ""
            for count, piece in enumerate(talking, 1):
                said += piece
                if count == sampling["max_tokens"] - number % 7:  # the listener has heard enough
                    talking.close()
            result = talk.result
        except (UnknownTurn, ValueError) as error:
            return str(error)
        assert result is not None
        return said, result.ids, result.logprobs, result.alternatives, result.finish_reason


def drawn(draw: random.Random) -> dict[str, Any]:
    return {
        "temperature": draw.choice([0, 0.7, 1.0]),
        "max_tokens": draw.randint(1, 30),
        "seed": draw.randrange(1000),
        "stop": draw.choice([(), ("e",), ("th", "\n"), tuple("aeiou st")]),
        "top_p": draw.choice([1.0, 0.9]),
        "repetition_penalty": draw.choice([1.0, 1.0, 1.3]),
        "presence_penalty": draw.choice([0.0, 0.5]),
        "logprobs": draw.choice([None, 2]),
        "min_tokens": draw.choice([0, 1]),
    }


@needs_native
@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(12))
def test_it_is_the_conversation_without_drafts(
    packed: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    draw = random.Random(seed)
    plain, drafted = Way(packed, tmp_path / "plain"), Way(packed, tmp_path / "drafted")
    reasons: set[str] = set()
    read: set[tuple[int, int]] = set()
    for number in range(100):
        if number >= 25 and reasons == _REASONS and max(k for k, _ in read) > 8:
            break
        what = draw.choice(["say", "say", "say", "again", "go on", "undo", "redo"])
        sampling = drawn(draw)
        came = plain.move(what, {**sampling, "draft": 0}, number)
        truth = [{0: came[1]}] if isinstance(came, tuple) else [{}]
        with monkeypatch.context() as patch:
            runners: list[Told] = []

            def told(model: Any, truth: Any = truth, runners: Any = runners) -> Told:
                runners.append(Told(model, truth, draw.randrange(1000), MOST_DRAFTS))
                return runners[-1]

            patch.setattr(started, "DraftRunner", told)
            assert drafted.move(what, {**sampling, "draft": MOST_DRAFTS}, number) == came
        if isinstance(came, tuple):
            reasons.add(came[-1])
            read = read.union(*(runner.met for runner in runners))
        if draw.random() < 0.3:
            drafted.restart()
        one, other = plain.talk.context, drafted.talk.context
        assert (one.state is None) == (other.state is None)
        assert one.state is None or equal(one, other)
    assert reasons == _REASONS and max(k for k, _ in read) > 8
    for way in (plain, drafted):
        way.talk.close()
        assert way.store.check() == ()
        way.store.close()
