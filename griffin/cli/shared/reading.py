"""A text of any size into a state, with a bar on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

if TYPE_CHECKING:
    from griffin.engine import Context
    from griffin.llm import LLM


_GARBAGE = 0.1  # a text with more than this share of bytes that are no UTF-8 is none


@contextmanager
def opened(source: str | Path) -> Iterator[tuple[BinaryIO, int | None]]:
    """Open a file with its size, or standard input for -. UsageError if there is no such file."""
    if str(source) == "-":
        yield sys.stdin.buffer, None
        return
    path = Path(source)
    if not path.exists() or path.is_dir():
        raise click.UsageError(f"there is no file {source} to read")
    with path.open("rb") as stream:
        yield stream, path.stat().st_size or None


class TextOnly:
    """A stream of bytes whose first block must look like text: ValueError, with `name`, if not."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name: str | None = name

    def read(self, size: int = -1) -> bytes:
        return self._checked(self._stream.read(size))

    def readline(self, size: int = -1) -> bytes:
        return self._checked(self._stream.readline(size))

    def _checked(self, block: bytes) -> bytes:
        if self._name is not None and block:
            place = block.find(b"\0")
            if place >= 0:
                raise ValueError(
                    f"{self._name} is no text: byte {place} is 0 (if it is UTF-16, convert it to"
                    " UTF-8)"
                )
            bad = block.decode("utf-8", errors="replace").count("\ufffd") - block.count(
                b"\xef\xbf\xbd"
            )
            if bad > max(3, _GARBAGE * len(block)):
                raise ValueError(
                    f"{self._name} is no UTF-8 text: {bad:,} of its first {len(block):,} bytes"
                )
            self._name = None
        return block


def read_text(
    llm: LLM,
    stream: BinaryIO,
    size: int | None,
    each: Callable[[Sequence[int]], object] | None = None,
) -> Context:
    """Read a text, BOS first, and return where it led; `each` gets all ids, piece by piece.

    ValueError for an empty text.
    """
    from griffin.cli.shared.progress import ReadingBar
    from griffin.text.pieces import Pieces, TextSource

    def shown(pieces: Iterable[Sequence[int]]) -> Iterator[Sequence[int]]:
        for ids in pieces:
            if each is not None:
                each(ids)
            yield ids

    with ReadingBar(size) as bar:
        text = TextSource(stream, bar.took)
        pieces = Pieces(llm.tokenizer, iter(text))
        context = llm.read(shown(pieces), progress=bar.read)
    notice(text.replaced, pieces.hard_cuts)
    return context


def notice(replaced: int, hard_cuts: int = 0) -> None:
    """Tell on standard error where what was read is not exactly what was given."""
    if replaced:
        click.echo(f"notice: {replaced:,} places were not UTF-8 and were read as U+FFFD", err=True)
    if hard_cuts:
        click.echo(
            f"notice: at {hard_cuts} places the ids may differ by one from those of the whole",
            err=True,
        )
