"""A text of any size into a state, with a bar on standard error; imported by verbs that do so."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from griffin.answer import Context
from griffin.cli.progress import ReadingBar
from griffin.llm import LLM
from griffin.sessions import NOTHING, extend_chain
from griffin.text.pieces import Pieces, TextSource


@contextmanager
def opened(source: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """Open a file with its size, or standard input for -. UsageError if there is no such file."""
    if source == "-":
        yield sys.stdin.buffer, None
        return
    path = Path(source)
    if not path.exists() or path.is_dir():
        raise click.UsageError(f"there is no file {source} to read")
    with path.open("rb") as stream:
        yield stream, path.stat().st_size or None


def read_ids(llm: LLM, stream: BinaryIO, size: int | None) -> tuple[Context, str]:
    """Read a text, BOS first; return where it led and the hash chain of its tokens.

    ValueError for an empty text.
    """
    chain = NOTHING

    def counted(pieces: Iterable[Sequence[int]]) -> Iterator[Sequence[int]]:
        nonlocal chain
        for ids in pieces:
            chain = extend_chain(chain, ids)
            yield ids

    with ReadingBar(size) as bar:
        text = TextSource(stream, bar.took)
        pieces = Pieces(llm.tokenizer, iter(text))
        context = llm.read(counted(pieces), progress=bar.read)
    if text.replaced:
        click.echo(f"notice: {text.replaced:,} places were not UTF-8 and were read as U+FFFD", err=True)
    if pieces.hard_cuts:
        click.echo(
            f"notice: at {pieces.hard_cuts} places the ids may differ by one from those of the whole",
            err=True,
        )
    return context, chain.hex()
