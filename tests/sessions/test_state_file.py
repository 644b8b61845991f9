"""Portable state files: what goes in comes out, and what is not whole or not right is named and
refused."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin.sessions import (
    SessionExists,
    StateInfo,
    StateMismatch,
    StateTorn,
    Store,
    TurnRecord,
    UnknownSession,
    UnknownTurn,
    extend_chain,
    load_state_file,
    read_state_info,
    save_state_file,
)
from griffin.sessions.disk import write_durably
from griffin.sessions.tensor_file import TensorFile, pack
from griffin.sessions.tokens import NOTHING
from tests.support.fake_states import CONFIG, CONFIGS, fake_state, fingerprint, holds, same, say
from tests.support.layers import attention, recurrent


def info_of(tokens: list[int], pending: int = 1, **more) -> StateInfo:
    chain = extend_chain(NOTHING, tokens).hex()
    defaults = {"fingerprint": fingerprint(), "config": CONFIG, "title": "Soup", "parent": chain}
    return StateInfo(
        **{**defaults, **more},
        tokens=len(tokens),
        chain=chain,
        pending=tuple(tokens[len(tokens) - pending :]),
    )


def records(*turns: list[int]) -> tuple[TurnRecord, ...]:
    tokens: list[int] = []
    found = []
    for number, ids in enumerate(turns):
        tokens += ids
        chain = extend_chain(NOTHING, tokens).hex()
        found.append(
            TurnRecord(
                role="user" if number % 2 else "model",
                text=None if number == 1 else f"said {number}",
                ids=tuple(ids),
                tokens=len(tokens),
                chain=chain,
                created=1e9 + number,
            )
        )
    return tuple(found)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_round_trip(tmp_path, kind, dtype):
    config, mark = CONFIGS[kind], fingerprint(CONFIGS[kind], dtype=dtype)
    path, chance = tmp_path / "a.state.safetensors", random.Random(3)
    for length in (1, 2, 9, 16, 17, 18, 50):
        tokens = [chance.randrange(97) for _ in range(length)]
        pending = min(length, chance.choice([1, 3]))
        info = info_of(tokens, pending, fingerprint=mark, config=config)
        state = fake_state(tokens[: length - pending], config, mark.torch_dtype)
        # In place of the one before.
        assert save_state_file(path, info, state) == path.stat().st_size
        assert path.stat().st_mode & 0o777 == 0o600
        for given_mark in (mark, None):
            found, back = load_state_file(path, given_mark)
            assert found == info and same(back, state)
        assert read_state_info(path) == info
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_any_library_reads_it_oldest_position_first(tmp_path):
    tokens = list(range(30))
    turns = records(tokens[:10], tokens[10:])
    save_state_file(tmp_path / "f", info_of(tokens, turns=turns), fake_state(tokens[:-1]))
    found = safetensors.torch.load_file(tmp_path / "f")
    assert sorted(found) == sorted(
        ["ids", "rg_lru.0", "conv.0", "k.1", "v.1", "rg_lru.2", "conv.2", "k.3", "v.3"]
    )
    state = fake_state(tokens[:-1])
    for place, position in enumerate(range(13, 29)):
        assert torch.equal(found["k.1"][place], attention(state, 1).k[0, position % 16])
        assert torch.equal(found["v.3"][place], attention(state, 3).v[0, position % 16])
    assert torch.equal(found["rg_lru.2"], recurrent(state, 2).lru[0])
    assert torch.equal(found["conv.0"], recurrent(state).conv[0])
    assert found["ids"].tolist() == tokens and found["ids"].dtype == torch.int32
    with safetensors.safe_open(tmp_path / "f", "pt") as file:
        said = file.metadata()
    assert (said["tokens_seen"], json.loads(said["pending_ids"]), said["title"]) == (
        "29",
        [29],
        "Soup",
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pending": ()}, "nothing is pending"),
        ({"pending": (97,)}, "97"),
        ({"tokens": 0}, "1 ids are pending, of 0"),
        ({"chain": "00"}, "32 hexadecimal"),
        ({"chain": "x" * 32}, "hexadecimal"),
        ({"created": float("nan")}, "since 1970"),
        ({"title": "\ud800"}, "UTF-8"),
        ({"config": CONFIGS["hawk"]}, "not the digest"),
        ({"turns": records([1, 2], [3])}, "does not end where"),
        ({"turns": (replace(records([1, 2, 3, 4])[0], ids=(1, 2, 3, 5)),)}, "not those its hash"),
        ({"turns": (replace(records([1, 2, 3, 4])[0], tokens=3),)}, "4 ids and ends after 3"),
        (
            {"turns": records([1, 2])[:1] + records([1, 2, 3], [4])[1:]},
            "ends after 4 tokens, not 3",
        ),
        ({"turns": records([1, 2, 3, 4]), "pending": (3,)}, "not the last ones"),
        ({"turns": (replace(records([1, 2, 3, 4])[0], created=float("inf")),)}, "made at inf"),
        ({"turns": (replace(records([1, 2, 3, 4])[0], text=5),)}, "not a string"),
    ],
)
def test_what_contradicts_itself_is_not_written(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(info_of([1, 2, 3, 4]), **wrong)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "must have read the rest"),
        (fake_state([1, 2, 3, 4, 5]), "position 5, after 3"),
        (fake_state([1, 2, 3], CONFIGS["hawk"]), "has 2 layers"),
        (fake_state([1, 2, 3], dtype=torch.bfloat16), "bfloat16"),
        (
            fake_state([1, 2, 3]).map(lambda t: t * float("inf") if t.dim() == 2 else t),
            "NaN or infinity",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_not_written(tmp_path, state, message):
    with pytest.raises(ValueError, match=message):
        save_state_file(tmp_path / "f", info_of([1, 2, 3, 4]), state)
    with pytest.raises(ValueError, match="there is no folder"):
        save_state_file(tmp_path / "no" / "f", info_of([1, 2, 3, 4]), fake_state([1, 2, 3]))
    assert not list(tmp_path.iterdir())


def test_another_model_is_refused_before_the_state_is_read(tmp_path):
    save_state_file(tmp_path / "f", info_of([1, 2, 3]), fake_state([1, 2]))
    with pytest.raises(
        StateMismatch, match=r"f belongs to another model \(weights: w+\.\.\. there, v here"
    ):
        load_state_file(tmp_path / "f", fingerprint(weights="v"))
    with pytest.raises(UnknownSession, match="no state file"):
        load_state_file(tmp_path / "g")


def altered(
    path: Path, metadata: dict[str, str | None], tensors: dict[str, torch.Tensor | None]
) -> None:
    """Write a file again with some things changed or gone, and checksums that fit."""
    with TensorFile(path) as file:
        said = {**file.metadata, **metadata}
        held = {**{name: file.read(name) for name in file.specs}, **tensors}
    packed = pack(
        {k: v for k, v in held.items() if v is not None},
        {k: v for k, v in said.items() if v is not None},
    )
    write_durably(path, packed.chunks)


KEYS = ["format", "version", "fingerprint", "config", "tokens_seen", "pos", "token_chain_hash"]
KEYS += ["pending_ids", "turns", "parent", "title", "created"]
NONSENSE = ["", "null", "-1", "[]", "{}", "NaN", "1e400", "[" * 90_000, '[{"ids": -1}]', '"x"']
WIDER = CONFIG.replace(attention_window_size=8)
HUGE = CONFIG.replace(attention_window_size=1 << 20, width=1024, num_heads=1, num_kv_heads=1)


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("metadata", "tensors"),
    [
        *(({name: None}, {}) for name in KEYS),
        *(({name: value}, {}) for name in KEYS[2:-3] for value in NONSENSE),
        *(({"created": value}, {}) for value in NONSENSE if value != "-1"),
        ({"format": "griffin-turn"}, {}),
        ({"version": "2"}, {}),
        ({"tokens_seen": "1"}, {}),  # less than the position
        ({"tokens_seen": "9" * 4000}, {}),
        ({"pos": "1"}, {}),
        ({"pos": "9" * 4000, "tokens_seen": "9" * 4000}, {}),
        ({"pending_ids": "[2, 3]"}, {}),
        ({"pending_ids": "[96.5]"}, {}),
        ({"pending_ids": "[97]"}, {}),
        ({"title": "\udcff"}, {}),
        ({"config": json.dumps(WIDER.to_dict())}, {}),
        ({"config": json.dumps({**CONFIG.to_dict(), "more": 1})}, {}),
        ({"config": json.dumps({**CONFIG.to_dict(), "attention_window_size": 1 << 40})}, {}),
        ({"config": json.dumps(HUGE.to_dict()),
          "fingerprint": json.dumps(fingerprint(HUGE).to_dict())}, {}),
        ({"config": json.dumps({**CONFIG.to_dict(), "block_types": ["recurrent"] * 100_000})}, {}),
        ({}, {"k.1": None}),
        ({}, {"k.0": torch.zeros(3)}),
        ({}, {"rg_lru.0": torch.zeros(6, dtype=torch.bfloat16)}),
        ({}, {"rg_lru.0": torch.zeros(7)}),
        ({}, {"rg_lru.0": torch.full((6,), float("nan"))}),
        ({}, {"v.3": torch.full((3, 1, 4), float("-inf"))}),
        ({}, {"v.3": torch.zeros(17, 1, 4)}),
        ({}, {"ids": torch.tensor([1, 2, 3, 95], dtype=torch.int32)}),
        ({}, {"ids": torch.tensor([1, 2, 3], dtype=torch.int32)}),
        ({}, {"ids": torch.tensor([1, 2, 3, 4])}),
    ],
)  # fmt: skip
def test_whole_files_that_lie(tmp_path, metadata, tensors):
    path = tmp_path / "f"
    save_state_file(
        path, info_of([1, 2, 3, 4], turns=records([1, 2], [3, 4])), fake_state([1, 2, 3])
    )
    altered(path, {}, {})
    load_state_file(path, fingerprint())  # the altering itself does no harm
    altered(path, metadata, tensors)
    for mark in (None, fingerprint()):
        with pytest.raises((StateTorn, StateMismatch), match=str(path)):
            load_state_file(path, mark)
    with Store(tmp_path / "s") as store:
        with pytest.raises((StateTorn, StateMismatch), match=str(path)):
            store.import_(path, "a")
        assert store.list() == () and store.check() == ()


def test_raw_states_are_told_apart(tmp_path):
    fake_state([1, 2]).save(tmp_path / "f")
    with pytest.raises(StateTorn, match="'griffin-state', without checksums"):
        load_state_file(tmp_path / "f")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("whole") / "f"
    save_state_file(
        path, info_of([1, 2, 3, 4], turns=records([1, 2], [3, 4])), fake_state([1, 2, 3])
    )
    return path, path.read_bytes()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_random_damage_is_never_anything_but_torn(whole, data):
    path, content = whole
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(
        st.one_of(st.just(start), st.just(len(content)), st.integers(start, len(content)))
    )
    damaged = content[:start] + data.draw(st.binary(max_size=60)) + content[stop:]
    path.write_bytes(damaged)
    if damaged != content:
        for read in (load_state_file, read_state_info):
            # What a file says of itself can be whole where its numbers are not.
            try:
                read(path)
                assert read is read_state_info
            except StateTorn as error:
                assert str(path) in str(error)


def test_a_session_travels(tmp_path):
    path = tmp_path / "a.state.safetensors"
    with (
        Store(tmp_path / "s") as store,
        store.create("a", fingerprint=fingerprint(), config=CONFIG) as session,
    ):
        for ids in (list(range(20)), [1, 2, 3], list(range(9)), [7]):
            say(session, ids)
        session.update(title="Soup")
        assert session.export(path, at=3) == path.stat().st_size
        turns = session.tree()
    tokens = [*range(20), 1, 2, 3, *range(9)]
    with Store(tmp_path / "t") as other:
        info = other.import_(path, "b", fingerprint=fingerprint())
        assert (info.name, info.title, info.turns, info.tokens) == ("b", "Soup", 3, 32)
        with pytest.raises(SessionExists):
            other.import_(path, "b")
        with pytest.raises(StateMismatch):
            other.import_(path, "c", fingerprint=fingerprint(weights="v"))
        with other.open("b", fingerprint()) as session:
            assert holds(session, tokens)
            assert [
                (t.role, t.text, t.ids, t.chain, t.tokens, t.created) for t in session.turns()
            ] == [(t.role, t.text, t.ids, t.chain, t.tokens, t.created) for t in turns[:3]]
            # Of the turns before it the ids are here, and are to be read again.
            assert [(t.kept, t.restorable) for t in session.turns()] == [
                *[(False, True)] * 2,
                (True, True),
            ]
            session.undo()
            resumed = session.resume()
            assert resumed.state is None and resumed.pending == tuple(tokens[:23])
            assert resumed.tokens == session.tokens == 23 and session.pending == resumed.pending
            session.redo()
            say(session, [8] * 5)
            assert holds(session, [*tokens, *[8] * 5])
            session.undo()
            assert holds(session, tokens)
            session.redo()
            session.export(tmp_path / "b.state.safetensors")
        assert other.check() == ()
        other.import_(tmp_path / "b.state.safetensors", "d")
        with other.open("d", fingerprint()) as session:
            assert holds(session, [*tokens, *[8] * 5]) and len(session.turns()) == 4
        other.import_(path)  # finds a name of its own
        assert len(other.list()) == 3


def test_a_state_that_is_no_conversation(tmp_path):
    """What `griffin state build` makes: much read, its ids not kept."""
    tokens = list(range(60))
    save_state_file(tmp_path / "book", info_of(tokens, title="Handbook"), fake_state(tokens[:-1]))
    with Store(tmp_path / "s") as store:
        store.import_(tmp_path / "book", "book", title="My book")
        with store.open("book", fingerprint()) as session:
            assert (session.title, session.head.role, session.head.ids) == ("My book", "state", ())
            resumed = session.resume()
            assert same(resumed.state, fake_state(tokens[:-1])) and resumed.pending == (59,)
            assert (resumed.tokens, resumed.read) == (60, 59)
            state = fake_state([*tokens, 1])
            session.commit(role="user", ids=[1, 2], state=state, pending=[2])
            assert (
                session.chain == extend_chain(NOTHING, [*tokens, 1, 2]).hex()
                and session.tokens == 62
            )
            assert same(session.resume().state, state)
            session.export(tmp_path / "again")
        assert store.check() == ()
        again = read_state_info(tmp_path / "again")
        assert [(turn.role, turn.ids) for turn in again.turns] == [("state", ()), ("user", (1, 2))]
        assert again.parent == info_of(tokens).chain
        store.import_(tmp_path / "again", "again")
        with store.open("again", fingerprint()) as session:
            assert same(session.resume().state, state)
            # What the first turn read is not known, so nobody can stand there.
            for use in (
                session.undo,
                lambda: session.goto(1),
                lambda: session.fork("c", at=1),
                lambda: session.export(tmp_path / "c", at=1),
            ):
                with pytest.raises(UnknownTurn, match=r"turn 1 is not kept here, .* go to a later"):
                    use()
            assert [turn.restorable for turn in session.turns()] == [False, True]
        assert store.check() == ()
