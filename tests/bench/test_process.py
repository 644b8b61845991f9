"""The process a program runs in, and what becomes of it when something goes wrong."""

from __future__ import annotations

import os
import signal
import time

import pytest

from griffin.bench.process import Stopped, Worker
from griffin.bench.programs import PROGRAMS


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_worker_answers_refuses_and_goes():
    with Worker("the probe") as worker:
        pid = worker._process.pid
        assert worker.ask("memory")["resident"] > 1e6
        # A request that fails is answered and the worker goes on.
        missing = {"model": "/nowhere", "format": "stored", "threads": 1, "chunk": 8}
        with pytest.raises(ValueError, match="/nowhere"):
            worker.ask("start", program="griffin", **missing)
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
            worker.ask("read_rate", patience=0.2, threads=1, nbytes=1 << 20, seconds=60)
        assert time.monotonic() - begun < 10


def test_a_rival_that_is_not_installed_is_named(monkeypatch, tmp_path):
    # A package of that name that cannot be imported, before any other on the path.
    (tmp_path / "llama_cpp.py").write_text(
        "raise ModuleNotFoundError('No module named libllama')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from griffin.bench.worker import Runner

    options = {"model": "x.gguf", "format": "int4", "threads": 1, "chunk": 8}
    with pytest.raises(
        ModuleNotFoundError, match=r"llama\.cpp cannot run here.*pip install llama-cpp-python"
    ):
        Runner().start("llama.cpp", **options)


def test_the_table_of_programs_names_files_that_exist():
    from importlib.util import find_spec

    for where, needed, formats in PROGRAMS.values():
        assert find_spec(where.partition(":")[0]) is not None and needed and formats
