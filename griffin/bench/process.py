"""The handle on a worker: a process that is asked one thing at a time, and gone once closed."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

# What a worker may raise for a reason that a user can do something about; anything else is a bug.
_KINDS: dict[str, type[Exception]] = {
    "ValueError": ValueError,
    "CheckpointError": ValueError,
    "ModuleNotFoundError": ValueError,
    "MemoryError": MemoryError,
    "OSError": OSError,
    "FileNotFoundError": FileNotFoundError,
}


class Stopped(RuntimeError):
    """A worker was stopped because an answer took longer than the caller would wait."""


class Worker:
    """A process that runs one program; leaving its `with` block ends it, whatever it does.

    name:   stands in error messages.
    module: what the process runs.
    root:   a folder that it may import from, besides griffin's own.
    """

    def __init__(
        self, name: str, module: str = "griffin.bench.worker", root: Path | None = None
    ) -> None:
        self.name = name
        # What libraries print is kept for the message of a crash. No pipe: nobody would empty it.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        ours = Path(__file__).parents[2]  # the same griffin, whichever way this one was found
        paths = [str(path) for path in (ours, root, os.environ.get("PYTHONPATH")) if path]
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process and wait for it."""
        if self._process.poll() is None:
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # an unread request went with the process
        self._process.wait()
        self._errors.close()

    def ask(self, call: str, patience: float | None = None, **arguments: Any) -> Any:
        """Have the worker carry out a request and return its answer.

        patience: seconds to wait, for ever if None; after that the worker is ended and Stopped
                  raised.
        Raises what the worker raised: ValueError for what the user asked wrongly (a program that
        is not installed among it), RuntimeError for the rest, and where the process died.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"call": call, "arguments": arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None
        if patience is not None:
            self._wait(call, patience)
        line = self._process.stdout.readline()
        if not line:
            raise self._death()
        answer = json.loads(line)
        if "error" in answer:
            kind = _KINDS.get(answer["kind"])
            if kind is None:
                raise RuntimeError(
                    f"{self.name} failed at {call}: {answer['error']}\n{answer['trace']}"
                )
            raise kind(answer["error"])
        return answer["result"]

    def _wait(self, call: str, patience: float) -> None:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(patience):
                self._process.kill()
                raise Stopped(f"{self.name} was stopped: {call} took longer than {patience:g} s")

    def _death(self) -> RuntimeError:
        code = self._process.wait()
        self._errors.seek(0)
        last = self._errors.read().decode("utf-8", "replace").strip().splitlines()[-8:]
        why = f"signal {-code}" if code < 0 else f"exit code {code}"
        hint = "; the system may have run out of memory" if code == -9 else ""
        return RuntimeError(f"the process of {self.name} ended ({why}{hint}): " + " | ".join(last))
