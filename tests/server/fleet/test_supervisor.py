"""The process that keeps replicas: it starts, watches, restarts and ends them, and none outlives
it."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from griffin.server.fleet.replica import READY
from griffin.server.fleet.supervisor import Replica, Supervisor
from griffin.server.http.sockets import bound
from tests.support.waiting import lives, until


class Supervised:
    """A supervisor in a process of its own, and what it and its replicas said."""

    def __init__(self, log: Path, count: int, behaviour: str, *grace: float) -> None:
        self.log = log
        self.folders = log.parent / "tmp"
        self.folders.mkdir()
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.support.fake_replicas", "supervise"),
                    str(count),
                    behaviour,
                ]
                + [str(seconds) for seconds in grace],
                stdout=out,
                stderr=out,
                env={**os.environ, "TMPDIR": str(self.folders)},
            )

    def said(self, begin: str) -> list[list[str]]:
        """Return the words after this one, of each line that begins with it."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [line[1:] for line in lines if line and line[0] == begin]

    def pids(self) -> list[int]:
        return [int(pid) for _, pid in self.said("replica")]

    def connect(self) -> socket.socket:
        found = urlsplit(self.said("at")[0][0])
        return socket.create_connection((found.hostname, found.port), timeout=60)

    def ask(self) -> int:
        """Return the id of the process that answers."""
        with self.connect() as connection:
            return int(connection.recv(100))


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    made: list[Supervised] = []

    def start(*arguments: Any) -> Supervised:
        made.append(Supervised(tmp_path / "log", *arguments))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.wait()


def test_one_that_dies_is_started_again_and_a_signal_ends_all(started):
    server = started(2, "serve")
    until(lambda: len(server.said("at")) and "replica 2 of 2 serves" in server.log.read_text())
    first = server.pids()
    until(lambda: {server.ask() for _ in range(4)} == set(first))  # both accept at the one address
    os.kill(first[0], signal.SIGKILL)
    until(lambda: len(server.pids()) == 3)
    number, again = server.said("replica")[2]
    assert (
        number == "1"
        and "replica 1 died (SIGKILL); it is started again in 0.5 s" in server.log.read_text()
    )
    assert server.ask() in (first[1], int(again))
    until(lambda: server.log.read_text().count("replica 1 of 2 serves") == 2)
    assert len(server.said("at")) == 1
    server.process.send_signal(signal.SIGTERM)
    until(lambda: len(server.said("told")) == 2)
    # While they end, nobody is left waiting at a door that no one will open.
    with pytest.raises(ConnectionRefusedError):
        until(lambda: server.connect() is None)
    assert server.process.wait(60) == 0
    assert sorted(server.said("ended")) == [["1"], ["2"]]  # to their own end
    assert not any(lives(pid) for pid in server.pids()) and not list(server.folders.iterdir())


def test_what_would_keep_all_from_serving_is_said_once(started):
    server = started(3, "fail")
    assert server.process.wait(60) == 2
    assert len(server.pids()) == 1 and not list(server.folders.iterdir())


def test_none_outlives_a_supervisor_that_was_killed(started):
    server = started(2, "deaf")
    until(lambda: server.log.read_text().count("serves (process") == 2)
    pids = server.pids()
    [folder] = server.folders.iterdir()  # of the sockets by which they ask each other
    assert all(lives(pid) for pid in pids) and folder.stat().st_mode & 0o777 == 0o700
    server.process.kill()
    until(lambda: not any(lives(pid) for pid in pids))
    until(lambda: not list(server.folders.iterdir()))


def test_one_that_does_not_end_is_killed(started):
    server = started(2, "deaf", 0.3)
    until(lambda: server.log.read_text().count("serves (process") == 2)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 1
    assert "were killed" in server.log.read_text() and not any(lives(pid) for pid in server.pids())


def test_who_supervises_loads_no_torch():
    modules = ("cli.serve", "server.fleet.supervisor", "server.fleet.command", "server.logs")
    rooms = ", ".join(f"griffin.{name}" for name in modules)
    code = f"import sys, {rooms}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_row_of_deaths_is_answered_ever_more_slowly():
    one = Replica(1)
    supervisor = Supervisor(1, lambda config: [], [])
    waits = []
    for now in range(12):
        one.begun = now
        supervisor._bury(one, "died", now)
        waits.append(one.again - now)
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]
    supervisor._bury(one, "died", one.begun + 61)  # it had lived for long
    assert one.again == one.begun + 61.5


def test_one_that_cannot_be_started_is_tried_again_and_harms_nobody(caplog):
    supervisor = Supervisor(2, lambda config: ["/nowhere/griffin"], [])
    [first, second] = supervisor.replicas
    with pytest.raises(OSError):
        supervisor._start(first, first=True)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for wait in (0.5, 1):
        supervisor._start(second)
        assert second.process is None and second.again == second.begun + wait
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert "replica 2 could not be started (No such file" in caplog.text


def test_a_replica_that_is_ready_too_late_starts_no_others():
    started = []
    supervisor = Supervisor(2, lambda config: [], [], announce=lambda: started.append("said"))
    [first, second] = supervisor.replicas
    # `_look` lets go of it if the signal has ended it by then.
    child = first.process = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE
    )
    first.link, theirs = socket.socketpair()
    supervisor._selector.register(first.link, selectors.EVENT_READ, first)
    with theirs, first.link, child:
        supervisor._signals.append(signal.SIGTERM)
        supervisor._obey()
        theirs.sendall(READY)
        supervisor._hear(first)
        assert first.ready and second.again is None and not started
        second.again = 0.0
        supervisor._look()
        assert second.process is None
        child.kill()


def test_a_successor_may_have_the_path_while_the_replicas_end(tmp_path):
    path = tmp_path / "door"
    supervisor = Supervisor(1, lambda config: [], bound("ignored", 1, path))
    supervisor._signals.append(signal.SIGTERM)
    supervisor._obey()
    assert not path.exists()
    [successor] = bound("ignored", 1, path)
    with successor:
        supervisor._close_listeners()  # as when all have ended
        assert path.is_socket()
