"""Text of any size to ids, in constant memory, with the ids the whole text would have."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from typing import BinaryIO

from griffin.text.cutter import Cutter
from griffin.text.tokenizer import Tokenizer

BLOCK = 1 << 16  # bytes read at a time
_LEAST = 1 << 14  # characters encoded at a time, at least
_MOST = 1 << 20  # without a safe cut in this many characters, the text is cut all the same


class TextSource:
    """Bytes of any length, read as UTF-8 in blocks.

    read:     bytes taken so far.
    replaced: bytes sequences that are no UTF-8, each now U+FFFD.
    """

    def __init__(self, stream: BinaryIO, progress: Callable[[int], object] | None = None) -> None:
        self.read = 0
        self.replaced = 0
        self._stream = stream
        self._progress = progress

    def __iter__(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        tail = b""
        while block := self._stream.read(BLOCK):
            self.read += len(block)
            # A U+FFFD that was typed is no error: only the surplus was put in by the decoder.
            genuine = (tail + block).count(b"\xef\xbf\xbd")
            tail = block[-2:] if len(block) > 1 else (tail + block)[-2:]
            text = decoder.decode(block)
            self.replaced += text.count("\ufffd") - genuine
            if self._progress is not None:
                self._progress(self.read)
            yield text
        text = decoder.decode(b"", final=True)
        self.replaced += text.count("\ufffd")
        yield text


class Pieces:
    """The ids of a long text, BOS first, one list after another.

    characters: encoded so far.
    hard_cuts:  places where a text had to be cut with no proof that its ids there are those of the
                whole (more than a million characters without a safe place).
    """

    def __init__(self, tokenizer: Tokenizer, source: Iterator[str]) -> None:
        self.characters = 0
        self.hard_cuts = 0
        self._tokenizer = tokenizer
        self._source = source

    def __iter__(self) -> Iterator[list[int]]:
        cutter: Cutter | None = None  # made when a text turns out to be long
        held = ""
        wanted = _LEAST
        first = True
        for text in self._source:
            held += text
            while len(held) >= wanted:
                cutter = cutter or Cutter(self._tokenizer)
                place = cutter.cut(held)
                if place is None and len(held) < _MOST:
                    wanted = 2 * len(held)
                    break
                if place is None:
                    self.hard_cuts += 1
                    place = held.rfind("\n", 1) + 1 or len(held)
                yield self._encode(held[:place], first)
                held, wanted, first = held[place:], _LEAST, False
        if held:
            yield self._encode(held, first)

    def _encode(self, text: str, first: bool) -> list[int]:
        self.characters += len(text)
        return self._tokenizer.encode(text, bos=first)
