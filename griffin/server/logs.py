"""How the server logs: lines on standard error."""

from __future__ import annotations

import logging

_LEVELS = {
    "griffin.server": logging.INFO,
    "uvicorn": logging.WARNING,
    "uvicorn.access": logging.CRITICAL + 1,
}


def log_to_stderr(replica: int | None = None) -> None:
    """Send what the server says to standard error. replica: of several, its number goes into each
    line.

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
