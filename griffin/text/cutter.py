"""Where a text can be cut so that both sides, encoded alone, give the ids of the whole.

Between two characters that stand side by side in no piece of the vocabulary: then no token of any
segmentation spans the place, and merges left and right of it cannot feel each other. What a
tokenizer does besides merging (its own splitting into words, spaces it adds) looks at the
neighbourhood only, so encoding the neighbourhood whole and in two parts shows whether it minds.
Lines are where this is most often so, but any place will do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Protocol

from griffin.text.vocabulary import Vocabulary

PART = 1 << 16  # characters
_AROUND = 96  # characters on each side of a cut that are encoded to prove it
_SPACE = "▁"  # how vocabularies write a space


class Encodes(Protocol):
    """A tokenizer, as far as it is needed here."""

    vocabulary: Vocabulary

    def encode(self, text: str, bos: bool = True) -> list[int]: ...


class Cutter:
    """Find places where a text can be cut without changing its ids."""

    def __init__(self, tokenizer: Encodes) -> None:
        self._tokenizer = tokenizer
        pairs: set[str] = set()
        for id, piece in enumerate(tokenizer.vocabulary.pieces):
            if piece is not None and id not in tokenizer.vocabulary.control_ids:
                plain = piece.replace(_SPACE, " ")
                pairs.update(map("".join, itertools.pairwise(plain)))
        self._pairs = pairs

    def cut(self, text: str) -> int | None:
        """Return the last safe place with enough text after it to be sure; None if there is
        none."""
        low = max(_AROUND, len(text) // 2)
        for place in range(len(text) - _AROUND, low - 1, -1):
            if text[place - 1 : place + 1].replace(_SPACE, " ") not in self._pairs and self._holds(
                text, place
            ):
                return place
        return None

    def _holds(self, text: str, place: int) -> bool:
        left, right = text[place - _AROUND : place], text[place : place + _AROUND]
        whole, first, second = (
            self._tokenizer.encode(part, bos=False) for part in (left + right, left, right)
        )
        return whole == first + second

    def parts(self, text: str) -> Iterator[str]:
        """Yield a text in parts that have the ids of the whole; the rest of it where none is found.

        A part is encoded in milliseconds, and takes little memory for that.
        """
        start = 0
        while len(text) - start > PART:
            place = self.cut(text[start : start + PART])
            if place is None:
                break
            yield text[start : start + place]
            start += place
        yield text[start:]
