"""Processes that are killed, disks that are full, two at once."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

from griffin.sessions import SessionBusy, StorageFull, Store, save_state_file
from griffin.sessions.tokens import unpack_ids
from tests.sessions.test_state_file import info_of
from tests.support.fake_states import CONFIG, disk, fake_state, fingerprint, holds, say

FORK = multiprocessing.get_context("fork")  # a child is there in milliseconds, torch and all


def turn_ids(number: int) -> list[int]:
    """What the conversation of these tests says in its turn of this number."""
    chance = random.Random(number)
    return [chance.randrange(97) for _ in range(chance.randint(1, 20))]


def tokens_after(turns: int) -> list[int]:
    return [i for number in range(1, turns + 1) for i in turn_ids(number)]


def child(work: Callable[[], None]) -> int:
    """Run something in a forked process and return its id. It ends without the cleaning up of this
    one."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def talk(folder: Path, done: int, turns: int = 1_000_000) -> None:
    """Go on talking, and say after each turn that it is finished."""
    with Store(folder) as store, store.open("a", fingerprint()) as session:
        while len(session.turns()) < turns:
            number = len(session.turns()) + 1
            say(session, turn_ids(number))
            os.write(done, number.to_bytes(4, "little"))


def kill_often(folder: Path, times: int) -> None:
    chance = random.Random(times)
    with Store(folder) as store, store.create("a", fingerprint=fingerprint(), config=CONFIG):
        pass
    finished = 0
    for _ in range(times):
        reading, writing = os.pipe()
        pid = child(lambda writing=writing: talk(folder, writing))
        os.close(writing)
        said = os.read(reading, 4)  # it is at work
        time.sleep(chance.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        while piece := os.read(reading, 1 << 16):
            said += piece
        os.close(reading)
        finished = max([finished, *unpack_ids(said)])
        with Store(folder) as store:
            assert store.check() == ()
            with store.open("a", fingerprint()) as session:
                turns = len(session.turns())
                # The one it was at may be finished too, its message lost with it.
                assert turns in (finished, finished + 1)
                finished = turns
                assert holds(session, tokens_after(turns))
            assert len(list(disk(store).blobs.iterdir())) == turns
            if chance.random() < 0.3:  # an undo in between does not confuse it
                with store.open("a", fingerprint()) as session:
                    session.undo()
                    session.redo()
    assert finished >= times


@pytest.mark.thorough
def test_killed_at_any_moment_the_last_finished_turn_is_there(tmp_path):
    kill_often(tmp_path / "s", 20)


@pytest.mark.slow
def test_killed_a_hundred_times(tmp_path):
    kill_often(tmp_path / "s", 100)


@pytest.mark.thorough
def test_killed_between_any_two_steps_of_a_commit(tmp_path, monkeypatch):
    """Every system call that changes the disk, one after another: the child ends right before
    it."""
    real = {name: getattr(os, name) for name in ("write", "fsync", "open")}
    real_rename = Path.replace

    def dying(folder: Path, left: int) -> None:
        count = 0

        def step() -> None:
            nonlocal count
            count += 1
            if count > left:
                os.kill(os.getpid(), signal.SIGKILL)

        with Store(folder) as store, store.open("a", fingerprint()) as session:
            for name, call in real.items():
                monkeypatch.setattr(os, name, lambda *a, call=call, **k: (step(), call(*a, **k))[1])
            monkeypatch.setattr(Path, "replace", lambda *a: (step(), real_rename(*a))[1])
            # Each statement of sqlite.
            store.folder.index._connection.set_trace_callback(lambda _: step())
            say(session, turn_ids(2))

    outcomes = []
    for left in range(60):
        folder = tmp_path / str(left)
        with (
            Store(folder) as store,
            store.create("a", fingerprint=fingerprint(), config=CONFIG) as session,
        ):
            say(session, turn_ids(1))
        pid = child(lambda folder=folder, left=left: dying(folder, left))
        _, status = os.waitpid(pid, 0)
        with Store(folder) as store, store.open("a", fingerprint()) as session:
            turns = len(session.turns())
            outcomes.append(turns)
            assert holds(session, tokens_after(turns)) and store.check() == ()
            assert len(list(disk(store).blobs.iterdir())) == turns
        if status == 0:
            break
    assert status == 0 and outcomes == sorted(outcomes) and set(outcomes) == {1, 2}
    assert len(outcomes) > 12


def test_a_full_disk_leaves_everything_as_it_was(tmp_path, monkeypatch):
    """Full at the first byte, in the middle of the file, at its flush, and at its name's."""
    path = tmp_path / "out.state.safetensors"
    with (
        Store(tmp_path / "s") as store,
        store.create("a", fingerprint=fingerprint(), config=CONFIG) as session,
    ):
        say(session, turn_ids(1))
        info, state = info_of(tokens_after(1)), fake_state(tokens_after(1)[:-1])
        save_state_file(path, info, state)
        kept = path.read_bytes()
        for name, after in (("write", 0), ("write", 2), ("fsync", 0), ("fsync", 1)):
            real, count = getattr(os, name), 0

            def full(*args, real=real, after=after):
                nonlocal count
                count += 1
                if count > after:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real(*args)

            for attempt in (
                lambda: say(session, turn_ids(2)),
                lambda: save_state_file(path, info, state),
            ):
                count = 0
                with monkeypatch.context() as patch:
                    patch.setattr(os, name, full)
                    with pytest.raises(
                        StorageFull, match=r"no room to write .*\(No space left on device\)"
                    ):
                        attempt()
                assert holds(session, tokens_after(1)) and store.check() == ()
                assert len(list(disk(store).blobs.iterdir())) == 1
                assert len(list(tmp_path.iterdir())) == 2
                if (name, after) != ("fsync", 1):  # there the new file has its name already
                    assert path.read_bytes() == kept
        say(session, turn_ids(2))  # with room again it goes on
        assert holds(session, tokens_after(2)) and store.check() == ()


def test_short_writes_are_gone_on_with(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:7]))
    with (
        Store(tmp_path / "s") as store,
        store.create("a", fingerprint=fingerprint(), config=CONFIG) as session,
    ):
        say(session, turn_ids(1))
        assert holds(session, tokens_after(1))


@pytest.mark.parametrize("limit", [600, 4_000, 30_000, 120_000])
def test_a_limit_on_file_sizes(tmp_path, limit):
    """The system's own refusal, met by the state's file or by sqlite's journal, whichever is
    larger."""
    folder = tmp_path / "s"
    with (
        Store(folder) as store,
        store.create("a", fingerprint=fingerprint(), config=CONFIG) as session,
    ):
        say(session, turn_ids(1))

    def work() -> None:
        with Store(folder) as store, store.open("a", fingerprint()) as session:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            turns = 1
            try:
                for turns in range(1, 400):
                    say(session, turn_ids(turns + 1))
            except StorageFull as error:
                assert "no room to write" in str(error)
            else:
                raise AssertionError("there was room")
            assert len(list(disk(store).blobs.iterdir())) == turns == len(session.turns())
            assert holds(session, tokens_after(turns))

    _, status = os.waitpid(child(work), 0)
    assert status == 0
    with Store(folder) as store, store.open("a", fingerprint()) as session:
        turns = len(session.turns())
        assert holds(session, tokens_after(turns)) and store.check() == ()
        say(session, turn_ids(turns + 1))
        assert holds(session, tokens_after(turns + 1))


def test_an_interrupt_after_the_commit_loses_nothing(tmp_path, monkeypatch):
    """Ctrl-C between the row's commit and the return: the file stays, the session knows where it
    stands."""
    with (
        Store(tmp_path / "s") as store,
        store.create("a", fingerprint=fingerprint(), config=CONFIG) as session,
    ):
        say(session, turn_ids(1))
        real = store.folder.index.transaction

        @contextmanager
        def interrupted():
            with real() as index:
                yield index
            raise KeyboardInterrupt

        monkeypatch.setattr(store.folder.index, "transaction", interrupted)
        with pytest.raises(KeyboardInterrupt):
            say(session, turn_ids(2))
        monkeypatch.undo()
        assert session.head.number == 2 and holds(session, tokens_after(2)) and store.check() == ()
        say(session, turn_ids(3))
        assert [turn.number for turn in session.turns()] == [1, 2, 3]


def write_many(folder: Path, name: str, start, turns: int) -> None:
    with (
        Store(folder) as store,
        store.create(name, fingerprint=fingerprint(), config=CONFIG) as session,
    ):
        start.wait()
        for number in range(1, turns + 1):
            say(session, turn_ids(number))
            if number % 5 == 0:
                store.recover()
            if number % 7 == 0:
                store.delete(session.fork(f"{name}.{number}"))


def test_processes_write_at_once(tmp_path):
    folder, start = tmp_path / "s", FORK.Barrier(3)
    workers = [FORK.Process(target=write_many, args=(folder, name, start, 25)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    with Store(folder) as store:
        assert store.check() == () and len(store.list()) == 3
        for name in "abc":
            with store.open(name, fingerprint()) as session:
                assert holds(session, tokens_after(25))


def test_processes_want_one_session(tmp_path):
    """One gets it, the others are told who has it; when it is killed the next gets it at once."""
    folder = tmp_path / "s"
    with Store(folder) as store, store.create("a", fingerprint=fingerprint(), config=CONFIG):
        pass
    reading, writing = os.pipe()
    pid = child(lambda: talk(folder, writing))
    os.read(reading, 4)

    def want() -> None:
        with (
            Store(folder) as store,
            pytest.raises(SessionBusy, match=f"in use by process {pid} on"),
        ):
            store.open("a", fingerprint())

    try:
        others = [child(want) for _ in range(2)]
        assert [os.waitpid(other, 0)[1] for other in others] == [0, 0]
        want()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)
    with Store(folder) as store, store.open("a", fingerprint()) as session:
        assert holds(session, tokens_after(len(session.turns())))


def test_only_one_of_many_wins_a_race(tmp_path):
    folder, start, won = tmp_path / "s", FORK.Barrier(4), FORK.Value("i", 0)
    with Store(folder) as store, store.create("a", fingerprint=fingerprint(), config=CONFIG):
        pass

    def race() -> None:
        with Store(folder) as store:
            start.wait()
            try:
                session = store.open("a", fingerprint())
            except SessionBusy:
                session = None
            start.wait()
            if session is not None:
                with won.get_lock():
                    won.value += 1
                say(session, turn_ids(1))

    workers = [FORK.Process(target=race) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4 and won.value == 1


def test_stores_open_at_once(tmp_path):
    """The first opening makes the index; of many at once each finds it whole."""
    start = FORK.Barrier(6)

    def work(name: str) -> None:
        start.wait()
        with (
            Store(tmp_path / "s") as store,
            store.create(name, fingerprint=fingerprint(), config=CONFIG),
        ):
            pass

    workers = [FORK.Process(target=work, args=(name,)) for name in "abcdef"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 6
    with Store(tmp_path / "s") as store:
        assert len(store.list()) == 6
