"""The folder: names, owners, leases, and what is refused."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffin.sessions import (
    InvalidName,
    SessionBusy,
    SessionError,
    SessionExists,
    StateMismatch,
    Store,
    UnknownSession,
    UnknownTurn,
)
from griffin.sessions.names import check_name
from tests.support.fake_states import (
    CONFIG,
    CONFIGS,
    begin,
    disk,
    fake_state,
    fingerprint,
    holds,
    say,
)
from tests.support.layers import recurrent


def everything_in(store: Store) -> bytes:
    return b"".join(path.read_bytes() for path in disk(store).path.rglob("*") if path.is_file())


def test_names(store):
    for name in ("a", "A", "0", "Kitchen-2.0_b", "x" * 128):
        begin(store, name).close()
    assert {info.name for info in store.list()} == {"a", "A", "0", "Kitchen-2.0_b", "x" * 128}
    for name in (
        "",
        ".",
        "..",
        "../a",
        "a/b",
        "a\\b",
        "-a",
        "_a",
        "a b",
        "a\n",
        "ä",
        "x" * 129,
        "a\0",
        None,
    ):
        for use in (lambda n: store.open(n, fingerprint()), store.show, store.delete, store.turns):
            with pytest.raises(InvalidName, match="1 to 128"):
                use(name)
        if name is not None:
            with pytest.raises(InvalidName):
                begin(store, name)
    with pytest.raises(InvalidName):
        store.within("a/b")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=140))
def test_any_text_is_a_name_of_the_allowed_form_or_refused(text):
    plain = text.isascii() and text.replace(".", "").replace("_", "").replace("-", "").isalnum()
    fine = 0 < len(text) <= 128 and plain and text[0].isalnum()
    if fine:
        assert check_name(text) == text
    else:
        with pytest.raises(InvalidName):
            check_name(text)


def test_names_are_no_part_of_any_path_and_nobody_else_may_look(store):
    with begin(store, "visible-name") as session:
        say(session, [1, 2])
        store.export("visible-name", disk(store).path / "out")
        paths = list(disk(store).path.rglob("*"))
        assert len(paths) > 6  # index and journal, two folders, blob, lock files
        for path in [disk(store).path, *paths]:
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
            assert "visible" not in path.name


def test_modes_do_not_depend_on_the_umask(tmp_path):
    before = os.umask(0)
    try:
        with Store(tmp_path / "s") as store, begin(store, "a") as session:
            say(session, [1, 2])
            for path in [disk(store).path, *disk(store).path.rglob("*")]:
                assert path.stat().st_mode & 0o077 == 0, path
    finally:
        os.umask(before)


def test_a_folder_others_may_look_into(tmp_path):
    (tmp_path / "empty").mkdir(mode=0o755)
    Store(tmp_path / "empty").close()
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o700
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open" / "thesis.txt").touch()
    with pytest.raises(ValueError, match="chmod 700"):
        Store(tmp_path / "open")
    assert [path.name for path in (tmp_path / "open").iterdir()] == ["thesis.txt"]


def test_a_list_of_those_that_have_some_words(store):
    for name, title, text in (
        ("a", "Soup", "bread AND Butter"),
        ("b", "", "50%_'; é"),
        ("c", "", ""),
    ):
        with begin(store, name, title=title) as session:
            say(session, [1, 2], text=text)
            say(session, [3], text=f"turn of {name}")
            session.undo()  # what is on another branch is found, too
    found = {
        "soup": "a",
        "bread and": "a",
        "%_'; ": "b",
        "é": "b",
        "turn of C": "c",
        "turn OF": "abc",
        "": "abc",
        "nowhere": "",
        "_": "b",
    }
    for words, names in found.items():
        assert {info.name for info in store.list(words)} == set(names), words
    assert store.within("other").list("soup") == ()


def test_list_show_and_rename(store):
    with begin(store, "a", title="Soup", settings={"x": 1}) as session:
        say(session, [1, 2, 3])
        say(session, [4])
        session.undo()
    begin(store, "b").close()
    assert [info.name for info in store.list()] == ["b", "a"]  # used last first
    info = store.show("a")
    assert (info.title, info.settings, info.turns, info.tokens) == ("Soup", {"x": 1}, 2, 3)
    assert info.head == 1 and store.show("b").head is None
    assert info.nbytes == sum(turn.nbytes for turn in store.turns("a"))
    assert 0 < store.usage().nbytes - info.nbytes - 2 * 2048 < 300  # rows beside the turns
    assert (
        abs(info.nbytes - sum(path.stat().st_size for path in disk(store).blobs.iterdir())) < 1200
    )
    assert info.fingerprint == fingerprint()
    store.rename("a", "c")
    with pytest.raises(UnknownSession, match="no session 'a'"):
        store.show("a")
    with store.open("c", fingerprint()) as session:
        assert holds(session, [1, 2, 3])
        with pytest.raises(SessionBusy):
            store.rename("c", "d")
    for taken in ("b", "c"):
        with pytest.raises(SessionExists, match="choose another name"):
            store.rename("c", taken)
    with pytest.raises(InvalidName):
        store.rename("c", "../c")


def test_a_session_without_a_name_gets_one(store):
    with begin(store) as one, begin(store) as two:
        assert one.name != two.name and {one.name, two.name} == {info.name for info in store.list()}


def test_creating_what_is_there(store):
    with begin(store, "a") as session:
        say(session, [1, 2])
        with pytest.raises(SessionExists):
            begin(store, "a")
        assert holds(session, [1, 2])
    assert len(list(disk(store).locks.iterdir())) == 1
    with pytest.raises(ValueError, match="digest of the config"):
        store.create("b", fingerprint=fingerprint(CONFIGS["hawk"]), config=CONFIG)


def test_one_holder_at_a_time(store):
    with begin(store, "a") as session:
        say(session, [1, 2])
        with pytest.raises(
            SessionBusy, match=f"process {os.getpid()} on .* since .*close it there"
        ):
            store.open("a", fingerprint())
        with pytest.raises(SessionBusy):
            store.delete("a")
        store.export("a", disk(store).path / "out.state.safetensors")  # reading is free
        assert len(store.turns("a")) == 1
    with store.open("a", fingerprint()):
        pass
    store.delete("a")


def test_another_model_is_refused_and_told_what_differs(store):
    begin(store, "a").close()
    others = {
        "config": fingerprint(CONFIGS["hawk"]),
        "weights": fingerprint(weights="v"),
        "dtype": fingerprint(dtype="bfloat16"),
        "quantization": fingerprint(quantization="int8"),
        "adapter": fingerprint(adapter="v"),
        "tokenizer": fingerprint(tokenizer="v"),
        "template": fingerprint(template="v"),
        "format": fingerprint(format="2"),
    }
    assert others.keys() == fingerprint().to_dict().keys()
    for part, other in others.items():
        with pytest.raises(
            StateMismatch, match=rf"'a' belongs to another model \({part}: [^;]*\)"
        ) as error:
            store.open("a", other)
        assert (error.value.status, error.value.code) == (409, "state_mismatch")
        assert list(fingerprint().differences(other)) == [part]
        assert other.digest != fingerprint().digest
    store.open("a", fingerprint()).close()  # a refusal holds no lease


@pytest.mark.parametrize(
    "bad", [{"weights": ""}, {"weights": "a\n"}, {"weights": 3}, {"dtype": "int8"}]
)
def test_fingerprints_are_strict(bad):
    with pytest.raises(ValueError, match="the fingerprint's"):
        fingerprint(**bad)


def test_owners_do_not_see_each_other(store):
    other = store.within("key-of-b")
    with begin(store, "a") as session:
        say(session, [1, 2])
    with begin(other, "a", title="mine") as session:
        say(session, [3, 4])
    with pytest.raises(UnknownSession):
        store.within("key-of-c").show("a")
    assert [info.title for info in other.list()] == ["mine"] and store.show("a").title == ""
    with other.open("a", fingerprint()) as session:
        assert holds(session, [3, 4])
        session.fork("b")
    assert len(other.list()) == 2 and len(store.list()) == 1
    store.delete("a")
    with pytest.raises(UnknownSession):
        store.delete("b")
    assert len(other.list()) == 2 and other.usage().sessions == 2


def test_delete_deletes(store):
    secret, ids = "the-secret-recipe", [71, 72, 73, 74, 75, 76]
    with begin(store, "secret-name") as session:
        say(session, [1, 2])
        session.fork("kept")
        session.update(title="secret-title", settings={"s": "secret-setting"})
        state = fake_state([1, 2, *ids[:-1]])
        session.commit(role="secret-role", ids=ids, state=state, pending=ids[-1:], text=secret)
        store.export("secret-name", disk(store).path.parent / "out")
    words = [
        b"secret",
        bytes(b for i in ids for b in (i, 0, 0, 0)),
        recurrent(state).lru.numpy().tobytes(),
    ]
    assert all(word in everything_in(store) for word in words)
    store.delete("secret-name")
    assert not any(word in everything_in(store) for word in words)
    assert [info.name for info in store.list()] == ["kept"] and store.check() == ()
    with store.open("kept", fingerprint()) as session:
        assert holds(session, [1, 2])


def test_export_of_what_is_not_there(store):
    begin(store, "a").close()
    with pytest.raises(ValueError, match="nothing has been said"):
        store.export("a", disk(store).path / "x")
    with pytest.raises(UnknownTurn):
        store.export("a", disk(store).path / "x", at=1)
    with pytest.raises(UnknownSession):
        store.export("b", disk(store).path / "x")
    assert not (disk(store).path / "x").exists()


def test_every_refusal_has_a_status_and_a_code():
    kinds = SessionError.__subclasses__()
    assert len(kinds) == 9 and len({kind.code for kind in kinds}) == 9
    assert {kind.status for kind in kinds} == {400, 404, 409, 507}


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    for place in (file, file / "deeper"):
        with pytest.raises(
            NotADirectoryError, match=r"notes\.txt is a file; .* a folder: name one"
        ):
            Store(place)
    assert file.read_text() == "mine"
