"""Turns are kept to the bit, and going back leaves no trace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from griffin.sessions import Session, Store, UnknownTurn, extend_chain
from griffin.sessions.tokens import NOTHING
from griffin.sessions.turn_file import expected
from tests.support.fake_states import (
    CONFIG,
    CONFIGS,
    fake_state,
    fingerprint,
    holds,
    random_ids,
    same,
    say,
)
from tests.support.toy_models import TOYS, make_model


@pytest.fixture(params=["local", "network", "memory"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store of each kind: a session of one behaves like that of any other."""
    if request.param == "memory":
        with Store.in_memory() as opened:
            yield opened
            assert not list(tmp_path.iterdir())
    else:
        with Store(tmp_path / "store", network=request.param == "network") as opened:
            yield opened


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_every_turn_of_any_length_comes_back_to_the_bit(tmp_path, kind, dtype):
    config, chance = CONFIGS[kind], random.Random(kind)
    mark = fingerprint(config, dtype=dtype)
    lengths = [1, 1, 2, 14, 1, 15, 16, 17, 40, 3, 5, 2, 1, 33]
    tokens: list[int] = []
    ends: list[tuple[int, int]] = []
    with (
        Store(tmp_path / "s") as store,
        store.create("a", fingerprint=mark, config=config) as session,
    ):
        for length in lengths:
            ids = [chance.randrange(97) for _ in range(length)]
            tokens += ids
            pending = chance.choice([1, 1, min(3, length)])
            ends.append((say(session, ids, pending=pending).tokens, pending))
    with Store(tmp_path / "s") as store, store.open("a", mark) as session:
        assert [turn.ids for turn in session.turns()][3] == tuple(tokens[4:18])
        assert session.chain == extend_chain(NOTHING, tokens).hex() and session.ids() == tuple(
            tokens
        )
        for number, (end, pending) in reversed(list(enumerate(ends, start=1))):
            session.goto(number)
            assert holds(session, tokens[:end], pending), number
            assert session.tokens == end
        assert store.check() == ()


def test_a_state_that_has_read_nothing(session, store):
    turn = session.commit(role="user", ids=[5], state=None, pending=[5])
    assert session.resume().state is None and turn.pending == (5,)
    say(session, [6, 7])
    assert holds(session, [5, 6, 7])
    session.undo()
    assert session.resume().state is None and session.pending == (5,)
    assert store.check() == ()


@pytest.mark.parametrize("kind", TOYS)
def test_undo_then_another_message_equals_never_having_said_it(tmp_path, kind):
    model = make_model(TOYS[kind])
    config, mark = model.config, fingerprint(model.config)
    chance = random.Random(7)
    first, regretted, second = ([chance.randrange(89) for _ in range(n)] for n in (21, 30, 19))

    def hear(session: Session, ids: list[int]) -> torch.Tensor:
        before = session.resume()
        unread = [*before.pending, *ids]
        logits, state = model(torch.tensor([unread[:-1]]), before.state)
        session.commit(role="user", ids=ids, state=state, pending=unread[-1:])
        return logits

    with Store(tmp_path / "s") as store:
        with store.create("a", fingerprint=mark, config=config) as straight:
            hear(straight, first)
            expected_logits = hear(straight, second)
            expected_state = straight.resume().state
        with store.create("b", fingerprint=mark, config=config) as session:
            hear(session, first)
            hear(session, regretted)
            session.undo()
        with store.open("b", mark) as session:
            assert torch.equal(hear(session, second), expected_logits)
            assert same(session.resume().state, expected_state)
            assert session.chain == store.turns("a")[-1].chain
            assert [(b.turns, b.shared, b.current) for b in session.branches()] == [
                (2, 1, False),
                (2, 2, True),
            ]


def test_undo_redo_goto_follow_the_way_back(session):
    for ids in ([1, 2], [3], [4, 5], [6]):
        say(session, ids)
    assert session.undo(3).number == 1
    assert session.redo().number == 2
    assert session.redo(2).number == 4
    assert session.undo(4) is None and session.tokens == 0 and session.resume().state is None
    assert session.redo(4).number == 4
    session.undo(2)
    say(session, [9, 9])  # a second branch after turn 2
    with pytest.raises(UnknownTurn, match="0 turns to redo"):
        session.redo()
    assert [turn.number for turn in session.turns()] == [1, 2, 5]
    session.goto(3)  # the first branch again; redo leads on in it
    assert session.redo().number == 4 and holds(session, [1, 2, 3, 4, 5, 6])
    session.goto(2)  # lies on the way it was on
    assert session.redo(2).number == 4
    session.goto(5)
    assert holds(session, [1, 2, 3, 9, 9])
    assert [(b.tip.number, b.turns, b.shared, b.current) for b in session.branches()] == [
        (4, 4, 2, False),
        (5, 3, 3, True),
    ]


def test_the_head_and_redo_survive_reopening(tmp_path):
    with Store(tmp_path / "s") as store:
        with store.create("a", fingerprint=fingerprint(), config=CONFIG) as session:
            for ids in ([1, 2], [3], [4]):
                say(session, ids)
            session.undo(2)
        with store.open("a", fingerprint()) as session:
            assert session.head.number == 1 and holds(session, [1, 2])
            assert session.redo(2).number == 3


def test_a_move_that_is_not_kept_is_made_by_the_next_turn(tmp_path):
    with Store(tmp_path / "s") as store:
        with store.create("a", fingerprint=fingerprint(), config=CONFIG) as session:
            for ids in ([1, 2], [3], [4]):
                say(session, ids)
            session.goto(1, keep=False)
            assert session.head.number == 1 and holds(session, [1, 2]) and store.show("a").head == 3
        with store.open("a", fingerprint()) as session:
            assert session.head.number == 3
            session.goto(1, keep=False)
            say(session, [5])
            assert session.undo().number == 1 and session.redo().number == 4
        with store.open("a", fingerprint()) as session:
            assert session.head.number == 4 and holds(session, [1, 2, 5])


@pytest.mark.parametrize(
    ("move", "message"),
    [
        (lambda s: s.undo(3), "has 2 turns here; 3 cannot"),
        (lambda s: s.undo(0), "1 or more turns"),
        (lambda s: s.redo(), "0 turns to redo"),
        (lambda s: s.redo(-1), "1 or more turns"),
        (lambda s: s.goto(3), "no turn 3"),
        (lambda s: s.goto(0), "no turn 0"),
        (lambda s: s.fork("b", at=9), "no turn 9"),
        (lambda s: s.fork("a/b"), "cannot name a session"),
        (lambda s: s.fork("kitchen"), "a session 'kitchen' already"),
    ],
)
def test_moves_that_cannot_be_made_change_nothing(session, store, move, message):
    say(session, [1, 2])
    say(session, [3])
    with pytest.raises(ValueError, match=message):
        move(session)
    assert session.head.number == 2 and holds(session, [1, 2, 3])
    assert [info.name for info in store.list()] == ["kitchen"]


def test_forks_share_files_and_nothing_else(store, session):
    ids = random_ids(random.Random(1), 30)
    say(session, ids)
    say(session, [1, 2, 3])
    say(session, [4])
    used, files = store.usage(), set(store.folder.blobs_there())
    session.undo()
    assert session.fork("try2") == "try2"
    assert session.fork("first", at=1, title="anew") == "first"
    assert store.usage().turns == used.turns and set(store.folder.blobs_there()) == files
    assert 2 * 2048 < store.usage().nbytes - used.nbytes < 2 * 2048 + 400  # rows
    assert len(store.folder.blobs_there()) == 3
    with store.open("try2", fingerprint()) as fork:
        assert holds(fork, [*ids, 1, 2, 3])
        with pytest.raises(UnknownTurn):
            fork.redo()  # what was undone does not come along
        assert say(fork, [7, 7]).number == 3
        session.redo()
        assert holds(session, [*ids, 1, 2, 3, 4])
        assert holds(fork, [*ids, 1, 2, 3, 7, 7])
    with store.open("first", fingerprint()) as fork:
        assert fork.title == "anew" and holds(fork, ids)
    session.close()
    store.rename("kitchen", "cellar")
    assert [store.show(name).parent for name in ("try2", "first", "cellar")] == [
        "cellar",
        "cellar",
        "",
    ]
    store.delete("cellar")
    assert store.show("try2").parent == ""
    for name, tokens in (("try2", [*ids, 1, 2, 3, 7, 7]), ("first", ids)):
        with store.open(name, fingerprint()) as fork:
            assert holds(fork, tokens)
    assert store.check() == ()
    store.delete("first")
    store.delete("try2")
    assert not store.folder.blobs_there() and store.usage().turns == 0


GOOD = {"role": "user", "ids": [3, 4], "pending": [4]}


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ids": []}, "at least one token"),
        ({"ids": [3, 97]}, "hold 97 at place 1"),
        ({"ids": [3, -1]}, "hold -1"),
        ({"ids": [3, True]}, "hold True"),
        ({"pending": []}, "cannot step back"),
        ({"pending": [3]}, "not the last"),
        ({"pending": [1, 1, 2, 3, 4]}, "not the last of the 3"),
        ({"pending": [3, 4]}, "at position 3; .* it would be at 2"),
        ({"role": "\ud800"}, "UTF-8"),
        ({"text": "\udfff"}, "UTF-8"),
        ({"text": 3}, "not a string"),
        ({"state": None}, "no state is given"),
        ({"state": fake_state([1, 2, 3, 5, 6, 7])}, "at position 6"),
        ({"state": fake_state([1, 2, 3], CONFIGS["hawk"])}, "has 2 layers"),
        ({"state": fake_state([1, 2, 3], dtype=torch.bfloat16)}, "bfloat16"),
        (
            {"state": fake_state([1, 2, 3], CONFIG.replace(attention_window_size=8))},
            "the session's model has",
        ),
        ({"state": fake_state([1, 2, 3]).select([0, 0])}, "layer 0"),
        (
            {"state": fake_state([1, 2, 3]).map(lambda t: t / 0 if t.dim() > 1 else t)},
            "NaN or infinity",
        ),
        ({"stats": {"a": {1, 2}}}, "JSON"),
    ],
)
def test_a_turn_that_does_not_fit_is_refused_and_nothing_changes(session, store, wrong, message):
    say(session, [1, 2])
    files = sorted(store.folder.blobs_there())
    with pytest.raises(ValueError, match=message):
        session.commit(**{**GOOD, "state": fake_state([1, 2, 3]), **wrong})
    assert sorted(store.folder.blobs_there()) == files
    assert holds(session, [1, 2]) and len(session.tree()) == 1
    session.commit(**GOOD, state=fake_state([1, 2, 3]))
    assert holds(session, [1, 2, 3, 4])


def test_states_are_copied(session):
    state = fake_state([1, 2])
    session.commit(role="user", ids=[1, 2, 3], state=state, pending=[3])
    state.consume()  # as a call with donate=True does
    resumed = session.resume().state
    resumed.consume()
    assert holds(session, [1, 2, 3])


def test_what_is_kept_beside(session, store):
    say(session, [1, 2])
    turn = session.commit(
        role="model",
        ids=[3],
        state=fake_state([1, 2]),
        pending=[3],
        text="Ü\0\n",
        stats={"seconds": 0.5},
    )
    assert (turn.text, turn.stats, turn.role, turn.parent) == (
        "Ü\0\n",
        {"seconds": 0.5},
        "model",
        1,
    )
    session.update(title="Soup", settings={"temperature": 0.7})
    session.close()
    assert store.show("kitchen").title == "Soup"
    with store.open("kitchen", fingerprint()) as again:
        assert again.settings == {"temperature": 0.7} and again.turns()[-1] == turn


def test_a_closed_session_says_so(session):
    say(session, [1, 2])
    session.close()
    for use in (session.resume, session.undo, lambda: say(session, [3]), lambda: session.fork("b")):
        with pytest.raises(ValueError, match="was closed"):
            use()


def test_a_turn_costs_half_a_megabyte_and_its_tokens_at_2b():
    from griffin.model import PRESETS

    specs = expected(PRESETS["recurrentgemma-2b"], torch.bfloat16, 20_000, 20_100)
    size = sum(torch.empty(s.shape, dtype=s.dtype, device="meta").nbytes for s in specs.values())
    assert size == 460_800 + 100 * 8_192


def test_files_hold_what_a_turn_added_and_no_more(session, store):
    def added(ids: list[int]) -> int:
        before = store.usage().nbytes
        say(session, ids)
        return store.usage().nbytes - before

    say(session, list(range(40)))
    # Two layers' keys and values of one head of 4 floats, and the id.
    kv_per_token = 2 * 2 * 4 * 4 + 4
    # Header, text.
    assert added(list(range(12))) - added([1, 2]) == pytest.approx(10 * kv_per_token, abs=60)
    assert added(list(range(60))) < added(list(range(30))) + 30 * 4 + 60  # a window is the most
