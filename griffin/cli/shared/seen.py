"""What somebody wrote, on a terminal: control characters could move its cursor, or worse."""

from __future__ import annotations

import sys


def picture(char: str) -> str:
    """Return what stands for a control character where it is seen."""
    code = ord(char)
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


_CONTROLS = map(chr, (*range(0x20), *range(0x7F, 0xA0)))
_PICTURES = {ord(char): picture(char) for char in _CONTROLS if char not in "\n\t"}


def harmless(text: str) -> str:
    """Return a text with pictures in the place of its control characters, but for ends of lines."""
    return text.translate(_PICTURES)


def seen(text: str) -> str:
    """Return a text as it is printed: on a terminal harmless, elsewhere as it is."""
    return harmless(text) if sys.stdout.isatty() else text
