"""The server's log: lines on standard error, and what they may hold of an exception."""

from __future__ import annotations

import logging
import traceback

_LEVELS = {
    "griffin.server": logging.INFO,
    "griffin.sessions": logging.WARNING,
    "uvicorn": logging.WARNING,
    "uvicorn.access": logging.CRITICAL + 1,
}


def log_to_stderr(replica: int | None = None) -> None:
    """Send what the server says to standard error, with the number of its replica if it has one.

    Only the server's loggers are touched: `dictConfig` would close the handlers of everybody in the
    process.
    """
    who = "" if replica is None else f"[{replica}] "
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {who}%(message)s"))
    for name, level in _LEVELS.items():
        logger = logging.getLogger(name)
        logger.handlers = [] if level > logging.CRITICAL else [handler]
        logger.setLevel(level)
        logger.propagate = False


def where(error: BaseException) -> str:
    """Return the kind of an exception and where it came from, without message and locals."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    cause = error.__cause__
    more = f", because of {where(cause)}" if cause is not None and cause is not error else ""
    return (
        f"{type(error).__module__}.{type(error).__name__} at"
        f" {' > '.join(places) or 'nowhere'}{more}"
    )
