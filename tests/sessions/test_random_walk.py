"""Everything one can do, at random, beside a model of it made of lists and dictionaries."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from griffin.sessions import Draft, Session, Store, UnknownTurn
from tests.support.fake_states import CONFIGS, fake_state, fingerprint, holds, random_ids


@dataclass
class Talk:
    """What a session should be: turns by number as (parent, ids, tokens up to it, how many of them
    the nearest kept state has not read, its own is kept)."""

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

    def held(self, number: int | None) -> tuple[list[int], int]:
        """The tokens up to a turn, and how many of them are pending there."""
        return ([], 0) if number is None else self.turns[number][2:4]

    def add(self, ids: list[int], pending: int, kept: bool) -> None:
        number = max(self.turns, default=0) + 1
        self.turns[number] = (self.head, ids, self.held(self.head)[0] + ids, pending, kept)
        self.head = self.tip = number

    def tip_from(self, number: int | None) -> int | None:
        """Where redo leads from a turn."""
        if number is None or number in self.line(self.tip):
            return self.tip
        while children := [n for n, turn in self.turns.items() if turn[0] == number]:
            number = max(children)
        return number

    def ahead(self) -> list[int]:
        way = self.line(self.tip)
        return way[len(self.line(self.head)) :]


def walk(folder: Path | None, files: Path, kind: str, seed: int, steps: int) -> None:
    chance, config = random.Random(seed), CONFIGS[kind]
    mark = fingerprint(config)
    talks: dict[str, Talk] = {}
    store = Store.in_memory() if folder is None else Store(folder)
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
                at, whole = chance.choice([None, *talk.turns]), chance.random() < 0.5
                session.fork(f"f{step}", at=at, whole=whole)
                line = talk.line(talk.head if at is None else at)
                end = line[-1] if line else None
                tip = talk.tip if at is None else talk.tip_from(at)
                copied = {number: talk.turns[number] for number in (talk.turns if whole else line)}
                talks[f"f{step}"] = Talk(copied, end, tip if whole else end)
        if talk.head is not None and chance.random() < 0.08:
            path = files / f"{kind}.state.safetensors"
            store.export(name, path)
            store.import_(path, f"i{step}", fingerprint=mark)
            line = talk.line(talk.head)
            copied = {
                number: (
                    number - 1 or None,
                    *talk.turns[old][1:3],
                    talk.turns[old][3] if number == len(line) else len(talk.turns[old][2]),
                    number == len(line),
                )
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
        if folder is not None and chance.random() < 0.1:
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
        and not store.folder.blobs_there()
        and not store.folder.locks_there()
    )
    store.close()


def move(chance: random.Random, session: Session, talk: Talk) -> None:
    what = chance.choice(["say", "say", "say", "undo", "redo", "goto"])
    if what == "say":
        tokens, held = talk.held(talk.head)
        read, drafts = len(tokens) - held, []
        while chance.random() < 0.25:
            drafts.append(Draft("user", random_ids(chance, 20), "before"))
            tokens = tokens + list(drafts[-1].ids)
            talk.add(list(drafts[-1].ids), len(tokens) - read, False)
        ids = random_ids(chance, chance.choice([3, 20, 50]))
        tokens = tokens + ids
        pending = chance.randint(1, min(4, len(tokens) - read))
        unread = tokens[len(tokens) - pending :]
        state = fake_state(tokens[: len(tokens) - pending], session.config)
        session.commit(role="user", ids=ids, state=state, pending=unread, before=drafts)
        talk.add(ids, pending, True)
    elif what == "undo":
        line, turns = talk.line(talk.head), chance.randint(1, 3)
        to = line[-turns - 1] if turns < len(line) else None
        if turns > len(line):
            with pytest.raises(UnknownTurn):
                session.undo(turns)
        else:
            session.undo(turns)
            talk.head = to
    elif what == "redo":
        ahead, turns = talk.ahead(), chance.randint(1, 2)
        if turns > len(ahead):
            with pytest.raises(UnknownTurn):
                session.redo(turns)
        else:
            session.redo(turns)
            talk.head = ahead[turns - 1]
    else:
        number = chance.choice([None, *talk.turns])
        session.goto(number)
        talk.head, talk.tip = number, talk.tip_from(number)


def agrees(session: Session, talk: Talk, everywhere: bool = False) -> None:
    numbers = list(talk.turns) if everywhere else [talk.head]
    for number in numbers:
        if everywhere:
            session.goto(number)
        assert [turn.number for turn in session.turns()] == talk.line(number)
        if number is not None:
            assert holds(session, talk.turns[number][2], talk.turns[number][3])
            assert session.head.ids == tuple(talk.turns[number][1])
            assert session.pending == session.resume().pending
            assert (session.head.kept, session.head.restorable) == (talk.turns[number][4], True)
        else:
            assert session.resume().state is None and session.tokens == 0


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["griffin", "hawk"])
@pytest.mark.parametrize("where", ["disk", "memory"])
def test_a_random_walk(tmp_path, kind, where):
    walk(tmp_path / "s" if where == "disk" else None, tmp_path, kind, seed=5, steps=60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_long_random_walks(tmp_path, seed):
    walk(tmp_path / "s", tmp_path, "griffin", seed, steps=700)
