"""A reward function on many answers, in processes that are replaced where one ends them."""

from __future__ import annotations

import math
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from griffin.tune.reward.file import read_file
from griffin.tune.reward.result import Reward, in_short
from griffin.tune.reward.worker_process import STARTING, WorkerProcess

_CHECKED = 0.2  # seconds, at most, from one check to the next


class Rewards:
    """A user's function from a prompt and an answer to a number, run in worker processes.

    spec:    "FILE.py:function", or the name of a function of `tasks.py`. It is called as
             reward(prompt, answer), or as reward(prompt, answer, row=...) if it has a parameter
             `row`: the columns of the prompt's row.
    seconds: of the clock that one call may take; then its process is ended and replaced.
    bytes:   that a process may add, in calls, to the address space that it had after it read the
             file (on Linux; elsewhere memory is not limited).
    workers: processes; each computes with one thread.
    check:   called several times a second while rewards are waited for; what it raises ends that.

    Making one starts the workers. Raises ValueError if the file is missing, has no such function or
    fails on import. The file is read once, here; `digest` is its SHA-256. No process outlives
    `close`, or the end of a `with` block, or this process, however that ends.
    """

    def __init__(
        self,
        spec: str,
        seconds: float = 10.0,
        bytes: int = 1 << 30,
        workers: int = 1,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        if not seconds > 0 or bytes < 1 or workers < 1:
            raise ValueError(
                f"a reward has seconds, bytes and workers above 0, not {seconds:g}, {bytes} and"
                f" {workers}"
            )
        self._file = read_file(spec)
        self.digest = self._file.digest
        self._seconds, self._bytes = seconds, bytes
        self._workers, self._slots, self._check = workers, list[_Slot](), check
        self._run([], ready=True)

    def score(
        self, pairs: Iterable[tuple[str, str] | tuple[str, str, Mapping[str, Any]]]
    ) -> list[Reward]:
        """Return the rewards of (prompt, answer) or (prompt, answer, row), in their order.

        They do not depend on the number of workers if the function depends on its arguments alone;
        Python's `random` is seeded for each call, by prompt and answer. Nor does an answer fail for
        the memory or the crash of one before it: it is scored once more, by a new process, before
        it counts as failed.
        """
        return self._run([(p, a, dict(row[0]) if row else {}) for p, a, *row in pairs])

    def close(self) -> None:
        """End the workers; `score` would start new ones."""
        for slot in self._slots:
            slot.worker.end()
        self._slots.clear()

    def __enter__(self) -> Rewards:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(
        self, asked: list[tuple[str, str, dict[str, Any]]], ready: bool = False
    ) -> list[Reward]:
        """Score all; ready: and wait until every worker has read the file."""
        found: dict[int, Reward] = {}
        waiting = deque(range(len(asked)))
        try:
            while len(self._slots) < self._workers:
                self._slots.append(_Slot(self._started()))
            while len(found) < len(asked) or (
                ready and not all(slot.worker.is_ready for slot in self._slots)
            ):
                for slot in self._slots:
                    if slot.worker.is_idle and slot.worker.has_ended:  # of itself: no answer's
                        slot.worker.end()
                        slot.worker = self._started()
                    if slot.item is None and waiting:
                        slot.item = waiting.popleft()
                    if slot.item is not None and slot.worker.is_idle:
                        slot.worker.ask(*asked[slot.item])
                self._wait()
                self._check()
                for slot in self._slots:
                    reward = None if slot.worker.is_idle else self._look(slot)
                    if reward is not None and slot.item is not None:
                        found[slot.item], slot.item = reward, None
        except BaseException:  # what is left of answers would be taken for the next ones
            self.close()
            raise
        return [found[number] for number in range(len(asked))]

    def _started(self) -> WorkerProcess:
        return WorkerProcess(self._file, self._seconds, self._bytes)

    def _wait(self) -> None:
        """Wait until a worker takes or tells something, a deadline has come, or it is time for a
        check."""
        poll, deadline = select.poll(), math.inf
        for worker in (slot.worker for slot in self._slots if not slot.worker.is_idle):
            if worker.is_sending:
                poll.register(worker.input, select.POLLOUT)
            poll.register(worker.output, select.POLLIN)
            deadline = min(deadline, worker.deadline)
        wait = min(deadline - time.monotonic(), _CHECKED)
        poll.poll(max(0, math.ceil(1000 * wait)))

    def _look(self, slot: _Slot) -> Reward | None:
        """Take what a worker tells; return the reward of its item if that is known now."""
        told: dict[str, Any] | None
        worker, spec = slot.worker, self._file.spec
        was_ready = worker.is_ready
        try:
            worker.send()
            told = worker.receive()
        except EOFError:
            status = worker.end(gone=True)
            if not was_ready:
                raise ValueError(f"{spec} {_ended(status)} when it is imported") from None
            told = {"reason": "died", "detail": f"{spec} {_ended(status)}"}
        if told is None:
            if worker.deadline > time.monotonic():
                return None
            if not was_ready:
                raise ValueError(f"{spec} takes more than {STARTING:g} s when it is imported")
            told = {"reason": "hung", "detail": f"{spec} was not done in {self._seconds:g} s"}
        if "refused" in told:
            raise ValueError(f"{self._file.path} {in_short(told['refused'])}")
        if told.get("reason") in ("hung", "memory", "died"):
            worker.end()
            slot.worker = self._started()
            if told["reason"] != "hung" and worker.asked > 1:
                return None  # the new worker is asked for the same
        if not was_ready:
            return None
        return Reward(told.get("value"), told.get("reason", ""), told.get("detail", ""))


@dataclass
class _Slot:
    """A worker's place. item: number of the answer that it scores."""

    worker: WorkerProcess
    item: int | None = None


def _ended(status: int) -> str:
    """Say how a process ended by itself."""
    if status >= 0:
        return f"ended its process (exit status {status})"
    name = signal.Signals(-status).name
    hint = "; was the machine out of memory?" if status == -signal.SIGKILL else ""
    return f"ended its process ({name}{hint})"
