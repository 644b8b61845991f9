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


def read_text(
    llm: LLM,
    stream: BinaryIO,
    size: int | None,
    each: Callable[[Sequence[int]], object] | None = None,
) -> Context:
    """Read a text, BOS first, and return where it led; `each` is shown all ids, piece by piece.

    ValueError for an empty text.
    """
    from griffin.cli.progress import ReadingBar
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
