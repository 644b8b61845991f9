"""Asking a run to stop: by SIGINT or SIGTERM, from its start to its end."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType


class Interrupted(Exception):
    """A run was asked to stop and did. `path` is the checkpoint it left, None before any step."""

    def __init__(self, path: Path | None = None) -> None:
        kept = f"everything so far is in {path}" if path else "before the first step"
        super().__init__(f"stopped; {kept}")
        self.path = path


class StopRequest:
    """Whether somebody has asked for a stop: `asked`, which whoever works looks at now and then."""

    def __init__(self, say: Callable[[str], object]) -> None:
        """say: told once that the stop was heard."""
        self.asked = self._heard = False
        self._say = say

    def check(self) -> None:
        """Raise `Interrupted` if a stop has been asked for; before the first step nothing is
        saved."""
        if self.asked:
            raise Interrupted

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Turn the first SIGINT or SIGTERM within the block into a request, and the second into
        KeyboardInterrupt. A block within such a block hears no less and forgets nothing."""
        if self._heard:
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True
            self._say("stopping as soon as nothing is lost by it; once more stops at once")

        try:
            old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # only the main thread may handle signals; elsewhere nobody asks us
            old = {}
        self._heard = True
        try:
            yield
        finally:
            self.asked = self._heard = False
            for number, handler in old.items():
                signal.signal(number, handler)
