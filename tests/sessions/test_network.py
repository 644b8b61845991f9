"""Folders that several machines share: their journal, the mount table, leases that get lost."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from griffin.sessions import SessionBusy, StateTorn, Store, filesystem, lease
from griffin.sessions.filesystem import check_place, mount_of
from tests.sessions.test_crash import child, kill_often, talk, tokens_after
from tests.support.fake_states import CONFIG, disk, fingerprint, holds, say

TABLE = r"""
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
40 21 0:35 / /mnt/share rw shared:9 - nfs4 files:/export rw,vers=4.2,local_lock=none,addr=10.0.0.2
41 21 0:36 / /mnt/share/disk rw - xfs /dev/vdb rw
42 21 0:37 / /mnt/old rw - nfs files:/old rw,vers=3,nolock,local_lock=all
43 21 0:38 / /mnt/with\040blank rw - cifs //files/x rw,nobrl
44 21 0:39 / /mnt/twice rw - nfs4 files:/a rw,local_lock=none
45 44 0:40 / /mnt/twice rw - tmpfs tmpfs rw
46 21 0:41 / /mnt/cloud rw - fuse.sshfs me@there: rw
a line of something else
"""


@pytest.mark.parametrize(
    "folder, kind",
    [
        ("/home/me/store", "ext4"),
        ("/mnt/share/store", "nfs4"),
        ("/mnt/share", "nfs4"),
        ("/mnt/shared", "ext4"),
        ("/mnt/share/disk/store", "xfs"),
        ("/mnt/with blank/store", "cifs"),
        ("/mnt/twice/store", "tmpfs"),
    ],
)
def test_the_mount_table(tmp_path, folder, kind):
    found = mount_of(type(tmp_path)(folder), TABLE)
    assert found is not None and found.kind == kind


@pytest.mark.parametrize(
    "folder, journal, words",
    [
        ("/home/me", "WAL", None),
        ("/home/me", "DELETE", None),
        ("/mnt/share", "WAL", r"nfs4.*--store-network"),
        ("/mnt/share", "DELETE", None),
        ("/mnt/old", "DELETE", "local_lock=all, nolock"),
        ("/mnt/with blank", "DELETE", "nobrl"),
        ("/mnt/cloud", "DELETE", "fuse.sshfs"),
    ],
)
def test_where_a_journal_holds(tmp_path, folder, journal, words):
    place = type(tmp_path)(folder)
    if words is None:
        check_place(place, journal, mount_of(place, TABLE))
    else:
        with pytest.raises(ValueError, match=words):
            check_place(place, journal, mount_of(place, TABLE))


def test_a_table_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(filesystem, "_TABLE", tmp_path / "none")
    assert mount_of(tmp_path) is None
    Store(tmp_path / "store").close()


def modes(store: Store) -> tuple[str, int]:
    return (
        store.folder.index.rows("PRAGMA journal_mode")[0][0],
        store.folder.index.rows("PRAGMA synchronous")[0][0],
    )


def test_a_network_folder_is_refused_without_the_option_and_keeps_to_it(tmp_path, monkeypatch):
    table = tmp_path / "table"
    table.write_text(f"40 21 0:35 / {tmp_path.resolve()} rw - nfs4 files:/x rw,local_lock=none\n")
    monkeypatch.setattr(filesystem, "_TABLE", table)
    folder = tmp_path / "store"
    with pytest.raises(ValueError, match="network=True"):
        Store(folder)
    assert not (folder / "index.sqlite").exists()
    with Store(folder, network=True) as store:
        assert modes(store) == ("delete", 3)
    with Store(folder) as store:  # who does not know is told by the folder
        assert modes(store) == ("delete", 3)


def test_a_local_folder_becomes_a_network_one_when_nobody_uses_it(tmp_path):
    folder = tmp_path / "store"
    with Store(folder) as local:
        assert modes(local) == ("wal", 2)
        with local.create("kitchen", fingerprint=fingerprint(), config=CONFIG) as session:
            say(session, [1, 2, 3])
        with pytest.raises(SessionBusy, match="open elsewhere"):
            Store(folder, network=True)
        assert modes(local)[0] == "wal"
        Store(folder).close()  # what failed changes nothing for others
    with Store(folder, network=True) as store:
        assert modes(store) == ("delete", 3)
        with store.open("kitchen", fingerprint()) as session:
            assert holds(session, [1, 2, 3])
        assert store.check() == ()
    assert not list(folder.glob("index.sqlite-*"))


@pytest.mark.thorough
def test_killed_at_any_moment_with_a_rollback_journal(tmp_path):
    Store(tmp_path / "s", network=True).close()
    kill_often(tmp_path / "s", 12)
    with Store(tmp_path / "s") as store:
        assert modes(store)[0] == "delete"


def test_processes_write_at_once_with_a_rollback_journal(tmp_path):
    import os

    names = "abcd"
    with Store(tmp_path / "s", network=True) as store:
        for name in names:
            store.create(name, fingerprint=fingerprint(), config=CONFIG).close()

    def work(name: str) -> None:
        with Store(tmp_path / "s") as own, own.open(name, fingerprint()) as session:
            for number in range(1, 7):
                say(session, [ord(name) - 90, number])

    children = [child(lambda name=name: work(name)) for name in names]
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * len(names)
    with Store(tmp_path / "s") as store:
        assert store.check() == ()
        for name in names:
            with store.open(name, fingerprint()) as session:
                said = [i for number in range(1, 7) for i in (ord(name) - 90, number)]
                assert holds(session, said)


@pytest.mark.parametrize("what", ["commit", "undo"])
def test_who_lost_a_lease_does_not_write_over_the_one_who_has_it(store, what):
    with store.create("kitchen", fingerprint=fingerprint(), config=CONFIG) as ours:
        say(ours, [1, 2, 3])
        # What it looks like when a file server gives up the lock of a machine that it does not hear
        # from.
        for lock in disk(store).locks.iterdir():
            lock.unlink()
        with store.open("kitchen", fingerprint()) as theirs:
            say(theirs, [4, 5])
        with pytest.raises(SessionBusy, match="elsewhere"):
            say(ours, [6]) if what == "commit" else ours.undo()
        with pytest.raises(ValueError, match="closed"):
            say(ours, [6])
    with store.open("kitchen", fingerprint()) as again:
        assert holds(again, [1, 2, 3, 4, 5]) and len(again.tree()) == 2
    assert store.check() == ()


def test_busy_is_seen_by_all_and_disturbs_nobody(store, tmp_path):
    with (
        Store(disk(store).path) as other,
        store.create("kitchen", fingerprint=fingerprint(), config=CONFIG),
    ):
        assert other.busy("kitchen") and store.busy("kitchen")
        with pytest.raises(SessionBusy, match="process"):
            other.open("kitchen", fingerprint())
    assert not store.busy("kitchen")
    store.open("kitchen", fingerprint()).close()


def test_the_session_of_one_who_was_killed_is_free(tmp_path):
    import os
    import signal

    with Store(tmp_path / "s") as store:
        store.create("a", fingerprint=fingerprint(), config=CONFIG).close()
        reading, writing = os.pipe()
        pid = child(lambda: talk(tmp_path / "s", writing))
        assert os.read(reading, 4) and store.busy("a")
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert not store.busy("a")  # though its lock file still names the dead
        with store.open("a", fingerprint()) as session:
            assert holds(session, tokens_after(len(session.turns())))


def test_a_moment_of_looking_is_waited_out(store, monkeypatch):
    """Who sweeps or looks holds a lease for a moment; nobody is told that a session is busy for
    that."""
    import threading

    store.create("kitchen", fingerprint=fingerprint(), config=CONFIG).close()
    [path] = disk(store).locks.iterdir()
    taken, seen = threading.Event(), threading.Event()

    def look() -> None:
        with lease.locked_if_free(path) as free:
            assert free
            taken.set()
            seen.wait()

    thread = threading.Thread(target=look)
    thread.start()
    taken.wait()

    def pause(_: float) -> None:
        """Between two tries the other one is done."""
        seen.set()
        thread.join()

    monkeypatch.setattr(lease, "time", SimpleNamespace(sleep=pause, strftime=time.strftime))
    store.open("kitchen", fingerprint()).close()
    assert seen.is_set()


def test_an_index_is_no_link(tmp_path):
    folder = tmp_path / "store"
    Store(folder).close()
    (folder / "index.sqlite").rename(tmp_path / "elsewhere")
    (folder / "index.sqlite").symlink_to(tmp_path / "elsewhere")
    with pytest.raises((OSError, StateTorn)):
        Store(folder)
