"""Memory that lies free in the allocator goes back to the system."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

LARGE = 1 << 17  # bytes of a body or an answer after which it is worth while


def find_trim() -> Callable[[], object] | None:
    """Return what gives free memory back; None where the C library has no way to.

    Only glibc keeps what was freed in many arenas, which it does not look through by itself.
    """
    if not sys.platform.startswith("linux"):
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return None if trim is None else lambda: trim(0)
