"""Threads that work beside the event loop, shared fairly by those who ask."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Asker(Protocol):
    """Who waits for something. holder: whose share it takes. gone: nobody waits any more.

    share: count bytes as its holder's, once for all of its requests that have the same thing.
    """

    @property
    def holder(self) -> str: ...
    @property
    def gone(self) -> bool: ...
    def share(self, thing: Hashable, count: int) -> None: ...


# Whose request a task of the event loop answers.
asking: ContextVar[Asker | None] = ContextVar("asking", default=None)

_Work = tuple["Future[Any]", Callable[[], Any]]


class Workers:
    """Some threads. Each namespace has a line of its own, and they take turns.

    threads: a namespace that has one already leaves the last free one to the others, so who has
             none waits for nobody's long work but that of others who have one each.
    """

    def __init__(self, name: str, threads: int) -> None:
        assert threads > 1, "one thread cannot be shared"
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"griffin-{name}")
        self._free = threads
        self._lines: dict[str, deque[_Work]] = {}  # whose turn is next comes first
        self._busy: Counter[str] = Counter()
        self._lock = threading.Lock()

    def submit(self, do: Callable[[], T], namespace: str | None = None) -> Future[T]:
        """Have something done when its turn comes. namespace: of who asks, the task's if None."""
        if namespace is None:
            asker = asking.get()
            namespace = "" if asker is None else asker.holder
        future: Future[T] = Future()
        with self._lock:
            line = (work for work in self._lines.get(namespace, ()) if not work[0].cancelled())
            self._lines[namespace] = deque((*line, (future, do)))
            self._begin()
        return future

    def shutdown(self, wait: bool = True) -> None:
        """Do nothing more; what waits is cancelled. wait: for what has begun to end."""
        with self._lock:
            for line in self._lines.values():
                for future, _ in line:
                    future.cancel()
            self._lines.clear()
        self._threads.shutdown(wait=wait)

    def _begin(self) -> None:
        """Begin what may begin now."""
        while self._free:
            may = (name for name in self._lines if not self._busy[name] or self._free > 1)
            if (namespace := next(may, None)) is None:
                return
            line = self._lines.pop(namespace)
            future, do = line.popleft()
            if line:  # at the end of those that wait
                self._lines[namespace] = line
            if future.set_running_or_notify_cancel():
                self._free -= 1
                self._busy[namespace] += 1
                self._threads.submit(self._work, namespace, [(future, do)])

    def _work(self, namespace: str, box: list[_Work]) -> None:
        future, do = box.pop()  # out of the arguments, which the caller's frame keeps
        try:
            result = do()
        except BaseException as error:
            self._end(namespace)
            future.set_exception(error)
            # The error's traceback leads to this frame: with the future here it would be a circle.
            del future, do
        else:
            self._end(namespace)
            future.set_result(result)

    def _end(self, namespace: str) -> None:
        with self._lock:
            self._free += 1
            self._busy[namespace] -= 1
            if not self._busy[namespace]:
                del self._busy[namespace]
            self._begin()
