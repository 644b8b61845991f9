"""What a person sees on standard error while something takes long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from griffin.checkpoints import Progress as Step

_PATIENCE = 2.0  # seconds before anything is shown
_PLAIN_SECONDS = 20.0  # between two lines where there is no terminal


class ReadingBar:
    """Show bytes, tokens a second and the time left; nothing for what takes under two seconds.

    total: bytes of the whole text, None if not known (a pipe).
    """

    def __init__(self, total: int | None) -> None:
        self.tokens = 0
        self.bytes = 0
        self._total = total
        self._began = self._told = time.monotonic()
        self._console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("reading"),
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._task = self._bar.add_task("reading", total=total, speed="")

    def __enter__(self) -> ReadingBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar.live.is_started:  # stopping what never began prints an empty line
            self._bar.stop()

    def took(self, count: int) -> None:
        """Tell how many bytes have been taken so far."""
        self.bytes = count
        self._show()

    def read(self, tokens: int) -> None:
        """Tell how many tokens the model has read so far."""
        self.tokens = tokens
        self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._began < _PATIENCE:
            return
        speed = f"{self.tokens / (now - self._began):,.0f} tokens/s"
        if self._console.is_terminal:
            self._bar.start()
            self._bar.update(self._task, completed=self.bytes, speed=speed)
        elif now - self._told > _PLAIN_SECONDS:
            self._told = now
            share = f" of {self._total:,}" if self._total else ""
            self._console.print(
                f"reading: {self.bytes:,}{share} bytes, {self.tokens:,} tokens, {speed}"
            )


class PromptBar:
    """Show how much of a prompt has been read, where its answer's first word takes two seconds.

    Silent where standard error is no terminal. A thread of its own draws it, so that it is there
    also while the model is busy with one long piece.
    """

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("reading"),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)
        self._lock = threading.Lock()
        self._timer = threading.Timer(_PATIENCE, self._start)
        self._timer.daemon = True

    def __enter__(self) -> PromptBar:
        if not self._bar.disable:
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def read(self, done: int, total: int) -> None:
        """Tell how many tokens of how many have been read."""
        words = f"{done:,} of {total:,} tokens"
        self._bar.update(self._task, completed=done, total=total, description=words)

    def end(self) -> None:
        """Take the bar away: the first word is there."""
        with self._lock:
            self._timer.cancel()
            self._bar.disable = True
            if self._bar.live.is_started:
                self._bar.stop()

    def _start(self) -> None:
        with self._lock:
            self._bar.start()  # nothing, after `end`


class WorkBar:
    """A progress bar for what reads or writes a checkpoint, once it has taken two seconds.

    what: a word for it, such as "loading". in_bytes: the steps count bytes; otherwise they are only
    parts of a whole. Silent where standard error is no terminal, and unless it is `shown`.
    """

    def __init__(self, what: str, in_bytes: bool = True, shown: bool = True) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn(what),
            BarColumn(),
            *((DownloadColumn(), TransferSpeedColumn()) if in_bytes else ()),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self._bar = Progress(
            *columns, console=console, transient=True, disable=not (shown and console.is_terminal)
        )

    def __enter__(self) -> Callable[[Step], None]:
        began, task = time.monotonic(), self._bar.add_task("", total=None)

        def advance(step: Step) -> None:
            if time.monotonic() - began >= _PATIENCE:
                self._bar.start()
            self._bar.update(task, completed=step.done, total=step.total, description=step.name)

        return advance

    def __exit__(self, *_: object) -> None:
        if self._bar.live.is_started:
            self._bar.stop()


class CaptureBar:
    """A progress bar for an engine that captures its graphs, once it has taken two seconds."""

    def __init__(self, shown: bool = True) -> None:
        self._bar = WorkBar("capturing graphs", in_bytes=False, shown=shown)

    def __enter__(self) -> Callable[[int, int], None]:
        advance = self._bar.__enter__()
        return lambda done, of: advance(Step(done, of, ""))

    def __exit__(self, *given: object) -> None:
        self._bar.__exit__(*given)
