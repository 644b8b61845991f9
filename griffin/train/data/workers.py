"""Work on blocks in processes of its own; results come in order, whatever their number.

A worker is this file run as a program: it reads pickles from its standard input and writes pickles
to its standard output. It ends when its input does, so none outlives a parent that was killed.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_order(
    task: Callable[[_Item], _Result], items: Iterable[_Item], workers: int
) -> Iterator[_Result]:
    """Yield what `task` returns for each item, in the items' order.

    workers: processes; 1 works in this one. task: a value that can be pickled, such as an instance
    of a class with `__call__`; each process has a copy. At most two items a worker are held.
    Raises what `task` raises, and ValueError if a process ends by itself.
    """
    if workers <= 1:
        yield from map(task, items)
        return
    with contextlib.ExitStack() as stack:
        idle = queue.SimpleQueue[subprocess.Popen[bytes]]()
        for _ in range(workers):
            idle.put(stack.enter_context(_worker(task)))

        def ask(item: _Item) -> _Result:
            process = idle.get()
            try:
                return _ask(process, item)
            finally:
                idle.put(process)

        pool = ThreadPoolExecutor(workers)
        stack.callback(pool.shutdown, cancel_futures=True)
        waiting = deque[Future[_Result]]()
        for item in items:
            waiting.append(pool.submit(ask, item))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextlib.contextmanager
def _worker(task: Any) -> Iterator[subprocess.Popen[bytes]]:
    # Ctrl-C is the parent's to answer; and its modules come from where this one's do.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment["TOKENIZERS_PARALLELISM"] = "false"
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=environment,
    )
    try:
        _send(process, task)
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # pyright: ignore[reportOptionalMemberAccess]


def _send(process: subprocess.Popen[bytes], value: Any) -> None:
    assert process.stdin is not None
    pickle.dump(value, process.stdin, pickle.HIGHEST_PROTOCOL)
    process.stdin.flush()


def _ask(process: subprocess.Popen[bytes], item: Any) -> Any:
    assert process.stdout is not None
    try:
        _send(process, item)
        done, value = pickle.load(process.stdout)
    except (OSError, EOFError, pickle.UnpicklingError):
        raise ValueError(
            f"a process that prepares data ended by itself ({process.poll()}); is there memory"
            " enough? fewer --threads need less"
        ) from None
    if not done:
        raise value
    return value


def _received(source: BinaryIO) -> Iterator[Any]:
    """Yield what arrives until the parent has ended, perhaps within a word."""
    with contextlib.suppress(EOFError, pickle.UnpicklingError):
        while True:
            yield pickle.load(source)


def _serve() -> None:
    source, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print does not come between
    arriving = _received(source)
    task: Any = next(arriving, None)  # none where the parent ended before it had sent one
    for item in arriving:
        try:
            answer = (True, task(item))
        except Exception as error:
            answer = (False, error)
        try:
            pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
        except BrokenPipeError:
            os._exit(1)  # nobody listens any more


if __name__ == "__main__":
    _serve()
