"""The C library's allocator, told to give large blocks back."""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD = -3  # of malloc.h
_LARGE = 4 << 20


def return_large_blocks() -> bool:
    """Have tensors of 4 MiB and more go back to the system as soon as they are freed; for good.

    glibc raises that bound to 32 MB by itself, and finds no place for an aligned block among freed
    ones of its size: between tensors that are kept, each block of a model leaves a hole behind.
    With what goes into each block kept alone, a forward pass at 2B grew by five gigabytes of them.
    Costs the system's zeroing of new pages. Returns False where there is no glibc to tell.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, _LARGE) == 1
