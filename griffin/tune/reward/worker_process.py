"""A process that runs a reward function, as its parent sees it; nothing here waits."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from griffin.tune.reward.file import RewardFile

STARTING = 300.0  # seconds for the file's own imports, which may be large
_MOST = 1 << 20  # bytes of an answer, far above what worker.py writes


class WorkerProcess:
    """worker.py with one function, started at once; it gets one call at a time.

    deadline: moment of `time.monotonic` at which what it does is too late. is_ready: whether it has
    read the file. asked: calls it got.
    It and its children end with `end`, with the last object that holds it, and with this process.
    """

    def __init__(self, file: RewardFile, seconds: float, memory: int) -> None:
        # Its modules come from where this process's do; sets have one order, and sums too.
        settled = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        path = os.pathsep.join(filter(None, sys.path))
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is its parent's
            env={**os.environ, **settled, "PYTHONPATH": path},
            bufsize=0,
        )
        self._finalizer = weakref.finalize(self, _end, self._process, os.getpid())
        assert self._process.stdin is not None and self._process.stdout is not None
        self.input, self.output = self._process.stdin.fileno(), self._process.stdout.fileno()
        for pipe in (self.input, self.output):
            os.set_blocking(pipe, False)
        self._seconds, self.is_ready, self.asked = seconds, False, 0
        self._read = bytearray()
        told = str(file.path), file.text, file.function, memory
        self._unsent = memoryview(pickle.dumps(told))
        self.deadline = time.monotonic() + STARTING

    @property
    def is_idle(self) -> bool:
        """Whether it has read the file and answered what it was asked."""
        return self.deadline == math.inf

    @property
    def has_ended(self) -> bool:
        """Whether its process is no more."""
        return self._process.poll() is not None

    @property
    def is_sending(self) -> bool:
        """Whether `send` has something to send."""
        return len(self._unsent) > 0

    def ask(self, prompt: str, answer: str, row: dict[str, Any]) -> None:
        """Begin a call; `send` and `receive` go on with it."""
        assert not self.is_sending
        self._unsent = memoryview(pickle.dumps((prompt, answer, row)))
        self.asked += 1
        self.deadline = time.monotonic() + self._seconds

    def send(self) -> None:
        """Send what the pipe takes now. One who is gone is noticed by `receive`."""
        try:
            self._unsent = self._unsent[os.write(self.input, self._unsent) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._unsent = memoryview(b"")

    def receive(self) -> dict[str, Any] | None:
        """Return an answer of worker.py if it has come whole; EOFError if none will come."""
        with suppress(BlockingIOError):
            part = os.read(self.output, 1 << 16)
            if not part:
                raise EOFError
            self._read += part
        size = int.from_bytes(self._read[:4], "big")
        if len(self._read) < 4 or len(self._read) < 4 + size <= _MOST:
            return None
        if 4 + size > _MOST:
            raise EOFError  # that was not worker.py
        answer = json.loads(self._read[4 : 4 + size])
        del self._read[: 4 + size]
        self.is_ready, self.deadline = True, math.inf
        return answer

    def end(self, gone: bool = False) -> int:
        """End it and its children; return its exit status, negative if a signal ended it.

        gone: it ends by itself and is given a second to do so, for its own status.
        """
        if gone:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
        self._finalizer()
        return self._process.returncode


def _end(process: subprocess.Popen[bytes], parent: int) -> None:
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()
    if parent == os.getpid():  # a fork of it has its parent's
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
