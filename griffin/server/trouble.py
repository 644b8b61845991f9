"""What a log may hold of an exception: its kind and places, never values, which may be someone's
words."""

from __future__ import annotations

import traceback


def where(error: BaseException) -> str:
    """Return the kind of an exception and where it came from, without its message and without
    locals."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    cause = error.__cause__
    more = f", because of {where(cause)}" if cause is not None and cause is not error else ""
    return (
        f"{type(error).__module__}.{type(error).__name__} at"
        f" {' > '.join(places) or 'nowhere'}{more}"
    )
