"""Server-sent events as the official client reads them."""

from __future__ import annotations

from typing import Any

import msgspec

from griffin.server.errors import ApiError

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx would hold the stream back
}
KEEPALIVE = b": keepalive\n\n"
DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


def data(payload: Any, event: str | None = None) -> bytes:
    """Write one event. payload: a Struct or plain values; event: its name, for /v1/responses only.

    JSON escapes every line break, so a payload is always one line.
    """
    line = b"data: " + _encode(payload) + b"\n\n"
    return line if event is None else b"event: " + event.encode("ascii") + b"\n" + line


def comment(text: str) -> bytes:
    """Write a line that clients skip, such as the progress of a long prompt."""
    return b": " + " ".join(text.split()).encode("utf-8", "replace") + b"\n\n"


def error(problem: ApiError) -> bytes:
    """Write a failure that ends a stream; the official client raises it."""
    return data(problem.object())
