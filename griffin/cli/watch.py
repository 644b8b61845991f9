"""`griffin watch`: read a stream without end, answer a standing question every so many lines."""

from __future__ import annotations

import codecs
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from griffin.cli.shared.model_source import ModelSource, model_options
from griffin.cli.shared.reading import TextOnly, notice
from griffin.cli.shared.results import answer_dict
from griffin.cli.shared.sampling import sampling_from, sampling_options
from griffin.cli.shared.seen import seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from griffin.document import Document

_LINE = 1 << 16  # bytes of a line that are taken at a time
_BATCH = 1 << 12  # characters that are gathered before the model reads them
_PAUSE = 0.2  # seconds between two looks at a file that has not grown


@click.command("watch")
@click.argument(
    "path",
    metavar="[FILE|-]",
    default="-",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
)
@click.option("--ask", "question", required=True, metavar="TEXT", help="The standing question.")
@click.option(
    "--every",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Lines between two answers.",
)
@click.option(
    "--follow",
    is_flag=True,
    help="Read FILE to its end, then what is added to it, as `tail -F` does.",
)
@click.option(
    "--chat/--raw",
    default=None,
    help="Put stream and question into a user's turn, or leave them as they are "
    "[chat for models with a chat template or called ...-it, else raw].",
)
@model_options
@sampling_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each answer.")
def command(
    path: Path,
    question: str,
    every: int,
    follow: bool,
    chat: bool | None,
    source: ModelSource,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Read FILE or standard input line by line and answer a standing question every so many lines.

    Questions and answers never become part of what is read: each is answered from a copy of the
    state. Memory does not grow, however long the stream is. At its end the question is answered
    once more if lines came since the last answer. Ctrl-C stops reading; a line of statistics comes
    last either way.

    Stream and question are put together as in `griffin ask`.
    """
    if not question.strip():
        raise ValueError("the question is empty; write what you want to know")
    if follow and str(path) == "-":
        raise click.UsageError("--follow needs a FILE; standard input is read until it ends anyway")
    fields = sampling_from(sampling)
    llm = source.llm()
    llm.params(**fields).check_vocabulary(llm.model.config.vocab_size)
    watch = Watch(llm.document(chat=chat, hold=False), every)
    asking = Asking(llm.name, fields, question, as_json)
    interrupted = False
    try:
        watch.run(followed(path) if follow else _plain(path), asking.answer)
    except KeyboardInterrupt:
        interrupted = True
        click.echo(err=True)
    notice(watch.replaced, watch.document.hard_cuts)
    click.echo(
        f"{watch.lines:,} lines, {watch.document.count():,} tokens read, {asking.count:,} answers "
        f"in {time.perf_counter() - watch.began:,.1f} s",
        err=True,
    )
    if interrupted:
        from griffin.cli import INTERRUPTED

        click.get_current_context().exit(INTERRUPTED)


class Watch:
    """A stream that is read in batches, and the moments at which it is asked about.

    lines:    that have come.
    replaced: places that were no UTF-8.
    began:    time.perf_counter() at the start.
    """

    def __init__(self, document: Document, every: int) -> None:
        self.document = document
        self.lines = 0
        self.replaced = 0
        self.began = time.perf_counter()
        self._every = every
        self._batch = ""
        self._asked = 0  # lines at the last question

    def run(self, chunks: Iterator[bytes], ask: Callable[[Watch], object]) -> None:
        """Read chunks of bytes, each at most one line, and call `ask` when an answer is due.

        An empty chunk says that nothing more has come for now: what is there is read meanwhile.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        fresh, ended = False, True
        for chunk in chunks:
            if not chunk:
                if fresh:
                    self._read()
                    self.document.settle()
                fresh = False
                continue
            fresh = True
            self._batch += (text := decoder.decode(chunk))
            self.replaced += text.count("\ufffd") - chunk.count(b"\xef\xbf\xbd")
            ended = chunk.endswith(b"\n")
            self.lines += ended
            if ended and self.lines % self._every == 0:
                self._ask(ask)
            elif len(self._batch) >= _BATCH:
                self._read()
        self._batch += (rest := decoder.decode(b"", final=True))
        self.replaced += len(rest)
        if not ended:
            self.lines += 1  # a last line without an end
        if self.lines > self._asked:
            self._ask(ask)

    def _read(self) -> None:
        batch, self._batch = self._batch, ""
        self.document.read([batch])

    def _ask(self, ask: Callable[[Watch], object]) -> None:
        self._read()
        self._asked = self.lines
        if not self.document.empty:  # nothing but blank lines so far
            ask(self)


class Asking:
    """The standing question, and how its answers are printed. count: of answers."""

    def __init__(self, model: str, fields: dict[str, Any], question: str, as_json: bool) -> None:
        self.count = 0
        self._model = model
        self._fields = fields
        self._question = question
        self._as_json = as_json

    def answer(self, watch: Watch) -> None:
        """Answer the question about what has come so far, on a fork."""
        stream = watch.document.stream(self._question, **self._fields)
        if not self._as_json:
            click.secho(f"line {watch.lines:,}: ", bold=True, nl=False)
        for piece in stream:
            if not self._as_json and piece.text:
                sys.stdout.write(seen(piece.text))
                sys.stdout.flush()
        self.count += 1  # before it is told: who has read it whole finds it counted
        if self._as_json:
            shared = watch.document.shared
            answer = answer_dict(self._question, stream.result, shared, self._model)
            click.echo(json.dumps({"line": watch.lines, **answer}, ensure_ascii=False))
        else:
            click.echo()
        sys.stdout.flush()


def followed(path: Path) -> Iterator[bytes]:
    """Give the lines of a file, without end those that are added; b"" if there are none now.

    A file that became shorter is read from its beginning; one that was put in the place of the old
    one is read after it.
    """
    stream = path.open("rb")
    try:
        text = TextOnly(stream, str(path))
        while True:
            if chunk := text.readline(_LINE):
                yield chunk
                continue
            yield b""
            time.sleep(_PAUSE)
            own = os.fstat(stream.fileno())
            try:
                now = path.stat()
            except FileNotFoundError:
                continue  # moved away, and the next one is not there yet
            if not os.path.samestat(own, now):
                while chunk := text.readline(_LINE):  # what came to the old one since
                    yield chunk
                stream.close()
                stream = path.open("rb")
                text = TextOnly(stream, str(path))
            elif now.st_size < stream.tell():
                stream.seek(0)
    finally:
        stream.close()


def _plain(path: Path) -> Iterator[bytes]:
    if str(path) == "-":
        yield from _lines(sys.stdin.buffer, "standard input")
        return
    with path.open("rb") as stream:
        yield from _lines(stream, str(path))


def _lines(stream: BinaryIO, name: str) -> Iterator[bytes]:
    text = TextOnly(stream, name)
    return iter(lambda: text.readline(_LINE), b"")
