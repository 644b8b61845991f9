"""Markdown as a terminal shows it, while it comes.

Everything goes out as soon as it is known what it is: a plain word at once, a line's mark with the
character after it, a span such as **this** when it is closed. What is not closed within its line,
or not within _LONGEST characters, is shown as it was written; so nothing is ever lost, taken back
or painted twice, and the work is linear in the length of the text. Underscores are left alone:
where models write, they are more often part of a name.
"""

from __future__ import annotations

import os
import re
import sys
from typing import NamedTuple

from griffin.cli.shared.seen import picture

_LONGEST = 120  # characters that wait for the end of a span
# What turns a style on and what turns it off; none turns off another's.
_ITALIC, _UNDERLINE, _COLOR, _BOLD = ("3", "23"), ("4", "24"), ("36", "39"), ("1", "22")
_FAINT = ("2", "22")
_BORDER = re.compile(r"[\n`*\[\\\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MARK = re.compile(r"[ \t]*(?:#{1,6}|`{1,99}|~{1,99}|>|[-*_+](?:[ \t]*[-*_])*)?[ \t]*")
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})")
_HEADING = re.compile(r"#{1,6}[ \t]+")
_RULE = re.compile(r"[ \t]*([-*_])(?:[ \t]*\1){2,}[ \t]*(?=\n|\Z)")
_QUOTE = re.compile(r"[ \t]*> ?")
_BULLET = re.compile(r"([ \t]*)[-*+][ \t]+")
_LINK = re.compile(r"\[([^\[\]\n]+)\]\(([^()\s]+)\)")
_LINK_BEGINS = re.compile(r"\[[^\[\]\n]*(?:\](?:\([^()\s]*)?)?\Z")
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def wanted() -> bool:
    """Return whether standard output shows styles, and its user wants them (no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


class _Taken(NamedTuple):
    """What is shown of a text, and up to where it was taken."""

    shown: str
    end: int


class Painter:
    """Paint a text that comes in pieces: show what `push` returns, and in the end `finish`.

    begins: the text begins a line, and is not part of one.
    Control characters, which could move the cursor or worse, are shown as pictures of themselves.
    """

    def __init__(self, begins: bool = True) -> None:
        self._held = ""  # what it is depends on what follows
        self._begins = begins
        self._fence = ""  # what ends the block of code
        self._line: tuple[tuple[str, str], ...] = ()  # styles of the whole line

    def push(self, piece: str) -> str:
        """Return what can be shown now."""
        return self._take(self._held + piece, ended=False)

    def finish(self) -> str:
        """Return the rest."""
        rest = self._take(self._held, ended=True)
        return rest + self._off()

    def _take(self, text: str, ended: bool) -> str:
        shown: list[str] = []
        at = 0
        while at < len(text):
            step = self._begin if self._begins else self._go_on
            if (taken := step(text, at, ended)) is None:
                break
            shown.append(taken.shown)
            at = taken.end
        self._held = text[at:]
        return "".join(shown)

    # Lines.

    def _begin(self, text: str, at: int, ended: bool) -> _Taken | None:
        """Take the mark at a line's beginning; None where more must come first."""
        mark = _MARK.match(text, at)
        assert mark is not None, "it matches nothing, too"
        if mark.end() == len(text) and not ended and mark.end() - at < _LONGEST:
            return None
        self._begins = False
        fence = _FENCE.match(text, at)
        if self._fence:
            if fence is not None and fence[1].startswith(self._fence):
                self._fence = ""
                return self._styled(_FAINT, at)
            return self._styled(_COLOR, at)
        if fence is not None:
            self._fence = fence[1]
            return self._styled(_FAINT, at)
        if (found := _RULE.match(text, at)) is not None:
            return _Taken(painted("─" * 20, _FAINT), found.end())
        if (found := _HEADING.match(text, at)) is not None:
            return _Taken(self._styled(_BOLD, at).shown, found.end())
        if (found := _QUOTE.match(text, at)) is not None:
            self._begins = True  # of what is quoted
            return _Taken(painted("│ ", _FAINT), found.end())
        if (found := _BULLET.match(text, at)) is not None:
            return _Taken(f"{found[1]}• ", found.end())
        return _Taken("", at)

    def _styled(self, style: tuple[str, str], at: int) -> _Taken:
        self._line = (style,)
        return _Taken(_on(style), at)

    def _off(self) -> str:
        line, self._line = self._line, ()
        return "".join(_off(style) for style in line)

    # Within a line.

    def _go_on(self, text: str, at: int, ended: bool) -> _Taken | None:
        """Take a plain run, a span or a line's end; None where more must come first."""
        border = _BORDER.search(text, at)
        end = len(text) if border is None else border.start()
        if end > at:
            return _Taken(text[at:end], end)
        char = text[at]
        if char == "\n":
            self._begins = True
            return _Taken(f"{self._off()}\n", at + 1)
        if not char.isprintable():
            return _Taken(picture(char), at + 1)
        if self._line and self._line[0] in (_COLOR, _FAINT):  # code is not read
            return _Taken(char, at + 1)
        if char == "\\":
            if at + 1 == len(text) and not ended:
                return None
            escaped = text[at + 1 : at + 2] in _PUNCTUATION and text[at + 1 :] != ""
            return _Taken(text[at + 1] if escaped else char, at + 1 + escaped)
        if char == "[":
            return self._link(text, at, ended)
        return self._span(text, at, ended)

    def _link(self, text: str, at: int, ended: bool) -> _Taken | None:
        window = text[at : at + _LONGEST]
        if (found := _LINK.match(window)) is not None:
            words, where = spans(found[1]), painted(f" ({found[2]})", _FAINT)
            return _Taken(painted(words, _UNDERLINE) + where, at + found.end())
        if len(window) < _LONGEST and not ended and _LINK_BEGINS.match(window):
            return None
        return _Taken("[", at + 1)

    def _span(self, text: str, at: int, ended: bool) -> _Taken | None:
        """Take `code`, **strong** or *stressed* words, or what only looks like their beginning."""
        char, window = text[at], text[at : at + _LONGEST]
        size = len(window) - len(window.lstrip(char))
        whole = ended or len(window) == _LONGEST or "\n" in window
        if size == len(window) and not whole:
            return None
        plain = _Taken(window[:size], at + size)
        if char == "*" and (size > 3 or window[size : size + 1].strip() == ""):
            return plain
        end = _closing(window, char, size, whole)
        if end is None:
            return plain if whole else None
        inner = window[size:end]
        if char == "`":
            bare = inner[1:-1] if inner[:1] == inner[-1:] == " " and inner.strip() else inner
            return _Taken(painted(_safe(bare), _COLOR), at + end + size)
        shown = spans(inner)
        if size > 1 and _BOLD not in self._line:
            shown = painted(shown, _BOLD)
        if size != 2:
            shown = painted(shown, _ITALIC)
        return _Taken(shown, at + end + size)


def spans(text: str) -> str:
    """Paint a piece of a line that is whole."""
    painter = Painter(begins=False)
    return painter.push(text) + painter.finish()


def painted(text: str, style: tuple[str, str]) -> str:
    """Put a style around a text."""
    return f"{_on(style)}{text}{_off(style)}"


def _closing(window: str, char: str, size: int, whole: bool) -> int | None:
    """Return where the span at a window's beginning is closed; None if it is not (yet)."""
    line = window.partition("\n")[0]
    for found in re.finditer(rf"{re.escape(char)}+", line[size:]):
        start, end = size + found.start(), size + found.end()
        if end == len(window) and not whole:
            return None  # its run may go on
        if len(found[0]) != size or (char != "`" and line[start - 1].isspace()):
            continue
        return start
    return None


def _on(style: tuple[str, str]) -> str:
    return f"\x1b[{style[0]}m"


def _off(style: tuple[str, str]) -> str:
    return f"\x1b[{style[1]}m"


def _safe(text: str) -> str:
    return "".join(char if char.isprintable() or char == "\t" else picture(char) for char in text)
