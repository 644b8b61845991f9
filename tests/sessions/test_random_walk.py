"""Everything one can do, at random, beside a model of it made of lists and dictionaries."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from griffin.sessions import Session, Store, UnknownTurn
from tests.sessions.fakes import CONFIGS, fake_state, fingerprint, holds, random_ids


@dataclass
class Talk:
    """What a session should be: turns by number as (parent, ids, tokens up to it, pending, has a
    state)."""

    turns: dict[int, tuple[int | None, list[int], list[int], int, bool]] = field(
        default_factory=dict
    )
    head: int | None = None
    tip: int | None = None

    def line(self, number: int | None) -> list[int]:
        way = []
        while number is not None:
            way.append(number)
            number = self.turns[number][0]
        return way[::-1]

    def ahead(self) -> list[int]:
        way = self.line(self.tip)
        return way[len(self.line(self.head)) :]


def walk(folder: Path, kind: str, seed: int, steps: int) -> None:
    chance, config = random.Random(seed), CONFIGS[kind]
    mark = fingerprint(config)
    talks: dict[str, Talk] = {}
    store = Store(folder)
    for step in range(steps):
        if not talks or chance.random() < 0.04:
            store.create(f"s{step}", fingerprint=mark, config=config).close()
            talks[f"s{step}"] = Talk()
        name = chance.choice(list(talks))
        talk = talks[name]
        with store.open(name, mark) as session:
            for _ in range(chance.randint(1, 4)):
                move(chance, session, talk)
                agrees(session, talk)
            if chance.random() < 0.15:
                at = chance.choice([n for n, turn in talk.turns.items() if turn[4]] or [None])
                session.fork(f"f{step}", at=at)
                line = talk.line(talk.head if at is None else at)
                copied = {number: talk.turns[number] for number in line}
                end = line[-1] if line else None
                talks[f"f{step}"] = Talk(copied, end, end)
        if talk.head is not None and chance.random() < 0.08:
            path = folder.parent / f"{kind}.state.safetensors"
            store.export(name, path)
            store.import_(path, f"i{step}", fingerprint=mark)
            line = talk.line(talk.head)
            copied = {
                number: (number - 1 or None, *talk.turns[old][1:4], number == len(line))
                for number, old in enumerate(line, start=1)
            }
            talks[f"i{step}"] = Talk(copied, len(line), len(line))
        if len(talks) > 4 or chance.random() < 0.02:
            gone = chance.choice(list(talks))
            store.delete(gone)
            del talks[gone]
        if chance.random() < 0.05 and talks:
            old = chance.choice(list(talks))
            store.rename(old, f"r{step}")
            talks[f"r{step}"] = talks.pop(old)
        if chance.random() < 0.1:
            store.close()
            store = Store(folder)
            assert store.check() == ()
        assert {info.name: (info.turns, info.head) for info in store.list()} == {
            name: (len(talk.turns), talk.head) for name, talk in talks.items()
        }
    for name in list(talks):
        with store.open(name, mark) as session:
            agrees(session, talks[name], everywhere=True)
        store.delete(name)
    assert (
        store.usage().nbytes == 0
        and not list(store.blobs.iterdir())
        and not list(store.locks.iterdir())
    )
    store.close()


def move(chance: random.Random, session: Session, talk: Talk) -> None:
    what = chance.choice(["say", "say", "say", "undo", "redo", "goto"])
    if what == "say":
        ids = random_ids(chance, chance.choice([3, 20, 50]))
        before = talk.turns[talk.head][2] if talk.head is not None else []
        held = talk.turns[talk.head][3] if talk.head is not None else 0
        tokens = before + ids
        pending = chance.randint(1, min(4, held + len(ids)))
        read = tokens[: len(tokens) - pending]
        state = fake_state(read, session.config)
        session.commit(role="user", ids=ids, state=state, pending=tokens[len(read) :])
        number = max(talk.turns, default=0) + 1
        talk.turns[number] = (talk.head, ids, tokens, pending, True)
        talk.head = talk.tip = number
    elif what == "undo":
        line, turns = talk.line(talk.head), chance.randint(1, 3)
        to = line[-turns - 1] if turns < len(line) else None
        if turns > len(line) or (to is not None and not talk.turns[to][4]):
            with pytest.raises(UnknownTurn):
                session.undo(turns)
        else:
            session.undo(turns)
            talk.head = to
    elif what == "redo":
        ahead, turns = talk.ahead(), chance.randint(1, 2)
        if turns > len(ahead) or not talk.turns[ahead[turns - 1]][4]:
            with pytest.raises(UnknownTurn):
                session.redo(turns)
        else:
            session.redo(turns)
            talk.head = ahead[turns - 1]
    else:
        number = chance.choice([None, *talk.turns])
        if number is not None and not talk.turns[number][4]:
            with pytest.raises(UnknownTurn):
                session.goto(number)
            return
        session.goto(number)
        if number is not None and number not in talk.line(talk.tip):
            talk.tip = number
            while children := [n for n, turn in talk.turns.items() if turn[0] == talk.tip]:
                talk.tip = max(children)
        talk.head = number


def agrees(session: Session, talk: Talk, everywhere: bool = False) -> None:
    numbers = [n for n, turn in talk.turns.items() if turn[4]] if everywhere else [talk.head]
    for number in numbers:
        if everywhere:
            session.goto(number)
        assert [turn.number for turn in session.turns()] == talk.line(number)
        if number is not None:
            assert holds(session, talk.turns[number][2], talk.turns[number][3])
            assert session.head.ids == tuple(talk.turns[number][1])
        else:
            assert session.resume().state is None and session.tokens == 0


@pytest.mark.parametrize("kind", ["griffin", "hawk"])
def test_a_random_walk(tmp_path, kind):
    walk(tmp_path / "s", kind, seed=5, steps=60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_long_random_walks(tmp_path, seed):
    walk(tmp_path / "s", "griffin", seed, steps=700)
