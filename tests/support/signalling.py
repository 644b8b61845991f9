"""Signals that come at a chosen call of a function, not at a time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any


def signal_after(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that sends SIGTERM to this process once it has been called so often."""
    done = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal done
        result = function(*args, **kwargs)
        done += 1
        if done == calls:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    return counted
