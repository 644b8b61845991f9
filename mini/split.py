"""What is learned and what is asked in an examination: by the content of a question, for ever."""

from __future__ import annotations

import hashlib

# Of a hundred keys so many are held out.
HELD_OUT = 6


def held_out(key: str) -> bool:
    """Return whether questions of this key are never trained on."""
    return hashlib.sha256(key.lower().encode()).digest()[0] * 100 < HELD_OUT * 256
