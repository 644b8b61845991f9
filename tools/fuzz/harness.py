"""A child process tries cases one after another; its parent watches the clock and the child."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 2.0
MEMORY = 200_000_000
# What a child may map above its imports before it gets a MemoryError: the machine stays alive.
_MAPPED = 8 << 30
# Importing takes seconds, on a busy machine many.
_START = 120.0
_STATUS = Path("/proc/self/status")


@dataclass
class Tally:
    """What came of the cases."""

    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: float = 0.0
    most: int = 0

    def __str__(self) -> str:
        outcomes = ", ".join(f"{n:,} {name}" for name, n in self.outcomes.most_common())
        return (
            f"{self.cases:,} cases: {outcomes or 'none'}; the slowest {self.slowest:.2f} s, the"
            f" most memory {self.most / 1e6:.0f} MB above the imports;"
            f" {len(self.findings)} findings"
        )


def kind_of(name: str) -> Any:
    """Return the module of a kind: a file of this folder, or any module by its dotted name."""
    return importlib.import_module(name if "." in name else f"tools.fuzz.{name}")


def chance(kind: str, seed: int, number: int) -> random.Random:
    """Return what case `number` is drawn with."""
    return random.Random(f"{kind} {seed} {number}")


def again(kind: str, seed: int, number: int) -> int:
    """Try one case in this process, with its traceback; return 1 if it is a finding."""
    module = kind_of(kind)
    case = module.make(chance(kind, seed, number))
    print(case)
    try:
        module.attempt(case)
    except module.ALLOWED as error:
        print(f"{type(error).__name__}: {error}")
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def hunt(
    kind: str,
    seed: int,
    cases: int | None = 1000,
    minutes: float | None = None,
    seconds: float = SECONDS,
    memory: int = MEMORY,
    patience: float | None = None,
    tell: Callable[[str], object] = lambda line: None,
) -> Tally:
    """Try the cases of a seed from 0 on, and return what came of them; `tell` hears findings.

    A case is slow after `seconds`, and its process ended after `patience` (seconds; five times
    `seconds` unless given).
    """
    patience = 5 * seconds if patience is None else patience
    tally, until = Tally(), time.monotonic() + 60 * (minutes or 0)
    child: _Child | None = None

    def found(number: int, what: str) -> None:
        line = f"case {number} of {kind}, seed {seed}: {what}"
        tally.findings.append(line)
        tell(line)

    try:
        while tally.cases < cases if cases is not None else time.monotonic() < until:
            number = tally.cases
            tally.cases += 1
            if child is None:
                child = _Child(kind, seed)
            told = child.attempt(number, patience)
            if isinstance(told, str):
                found(number, told)
                tally.outcomes["ended the process"] += 1
                child.end()
                child = None
                continue
            tally.outcomes[told["outcome"]] += 1
            tally.slowest = max(tally.slowest, told["seconds"])
            tally.most = max(tally.most, told["grown"])
            if told["finding"]:
                found(number, told["finding"])
            if told["seconds"] > seconds:
                found(number, f"took {told['seconds']:.1f} s")
            if told["grown"] > memory:
                found(number, f"took {told['grown'] / 1e6:.0f} MB above the imports")
                child.end()  # its peak never falls
                child = None
    finally:
        if child is not None:
            child.end()
    return tally


class _Child:
    """A process that reads numbers of cases and answers a line of JSON to each."""

    def __init__(self, kind: str, seed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.fuzz.harness", kind, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        if not self._line(_START):
            self.end()
            raise RuntimeError(f"the process that should try {kind} does not start")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _line(self, seconds: float) -> str | None:
        """Return the next line; "" where the process ended, None where none came in time."""
        try:
            return self._lines.get(timeout=seconds)
        except queue.Empty:
            return None

    def attempt(self, number: int, patience: float) -> dict[str, Any] | str:
        """Return what the child says of a case, or what became of the child instead."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        line = self._line(patience)
        if line is None:
            return f"was not over after {patience:.0f} s"
        if not line:
            code = self._process.wait()
            return f"ended the process ({signal.Signals(-code).name if code < 0 else code})"
        return json.loads(line)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _peak() -> int:
    """Return the most bytes this process ever held."""
    if _STATUS.is_file():
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _mapped() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf(
        "SC_PAGE_SIZE"
    )


def _child(kind: str, seed: int) -> None:
    # What libraries print, or write to the descriptor, must not come between the lines.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module = kind_of(kind)
    if _STATUS.is_file():
        most = _mapped() + _MAPPED
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    before = _peak()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        case = module.make(chance(kind, seed, int(line)))
        outcome, finding, begin = "taken", "", time.monotonic()
        try:
            module.attempt(case)
        except module.ALLOWED as error:
            outcome = type(error).__name__
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            outcome = "a finding"
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            finding = f"{type(error).__name__} at {place}: {str(error)[:200]!r}"
        told = {
            "outcome": outcome,
            "finding": finding,
            "seconds": time.monotonic() - begin,
            "grown": _peak() - before,
        }
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    _child(sys.argv[1], int(sys.argv[2]))
