"""Passes of the model beside the engine: prompts that are measured, texts that become vectors."""

from __future__ import annotations

import threading
import time

from griffin.engine import Engine


class Cancelled(Exception):
    """Nobody waits for it any more."""


class Turns:
    """Share the machine with answers: while there are some, a pass has half of the time.

    stop: is set when nobody waits for the pass any more.
    """

    def __init__(self, engine: Engine, stop: threading.Event) -> None:
        self._engine = engine
        self._stop = stop
        self._begun = time.perf_counter()

    def rest(self) -> None:
        """After a call of the model, let answers have as long; Cancelled if nobody waits."""
        if self._engine.stats().running:
            self._stop.wait(time.perf_counter() - self._begun)
        if self._stop.is_set():
            raise Cancelled
        self._begun = time.perf_counter()
