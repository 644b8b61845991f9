"""The process a program runs in, and what becomes of it when something goes wrong."""

from __future__ import annotations

import os
import signal
import time
from importlib.util import find_spec

import pytest

from griffin.bench.process import Stopped, Worker
from griffin.bench.program import OURS


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.thorough
def test_a_worker_answers_refuses_and_goes():
    with Worker("the probe") as worker:
        pid = worker._process.pid
        assert worker.ask("memory")["resident"] > 1e6
        # A request that fails is answered and the worker goes on.
        missing = {"model": "/nowhere", "format": "stored", "threads": 1, "chunk": 8}
        ours = {"program": "griffin", "where": OURS.where, "packages": OURS.packages}
        with pytest.raises(ValueError, match="/nowhere"):
            worker.ask("start", **ours, **missing)
        with pytest.raises(
            RuntimeError, match=r"failed at no_such_thing.*AttributeError|no_such_thing"
        ):
            worker.ask("no_such_thing")
        assert worker.ask("memory", forget=True)["peak"] > 1e6  # still there
    assert gone(pid)


def test_a_worker_that_dies_says_how():
    with Worker("a program") as worker:
        worker.ask("memory")
        os.kill(worker._process.pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"a program ended \(signal 9"):
            worker.ask("memory")


def test_a_worker_that_takes_too_long_is_ended():
    with Worker("a rival") as worker:
        worker.ask("memory")
        begun = time.monotonic()
        with pytest.raises(
            Stopped, match=r"a rival was stopped: read_rate took longer than 0\.2 s"
        ):
            worker.ask("read_rate", patience=0.2, threads=1, nbytes=1 << 20, seconds=3600)
        assert time.monotonic() - begun < 600


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ("not_there", "x cannot run here: No module named 'not_there'.*`pip install one two`"),
        ("programs.more", "^No module named 'programs.more'$"),  # its own: nothing to install
    ],
)
def test_a_program_of_another_folder_is_found_and_says_what_it_lacks(tmp_path, lacks, said):
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "x.py").write_text(f"import {lacks}\n")
    program = {"program": "x", "where": "programs.x:Program", "packages": ["one", "two"]}
    options = {"model": "", "format": "stored", "threads": 1, "chunk": 8}
    with Worker("x", root=tmp_path) as worker, pytest.raises(ValueError, match=said):
        worker.ask("start", **program, **options)


def test_our_own_program_is_where_it_is_said_to_be():
    assert find_spec(OURS.where.partition(":")[0]) is not None
    assert OURS.packages and OURS.formats
