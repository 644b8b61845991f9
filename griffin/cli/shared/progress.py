"""What a person sees on standard error while a long text is read or a checkpoint written."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

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

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
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


class WorkBar:
    """A progress bar for what writes a checkpoint; silent where standard error is no terminal.

    in_bytes: the steps count bytes; otherwise they are only parts of a whole.
    """

    def __init__(self, in_bytes: bool = True) -> None:
        console = Console(stderr=True)
        columns = (
            BarColumn(),
            *((DownloadColumn(), TransferSpeedColumn()) if in_bytes else ()),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self._bar = Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        )

    def __enter__(self) -> Callable[[Step], None]:
        self._bar.start()
        task = self._bar.add_task("", total=None)

        def advance(step: Step) -> None:
            self._bar.update(task, completed=step.done, total=step.total, description=step.name)

        return advance

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
