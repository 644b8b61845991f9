"""`griffin ask`: read a text once, answer many questions about it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import click

from griffin.cli.shared.model_source import ModelSource, model_options
from griffin.cli.shared.reading import TextOnly, notice, opened
from griffin.cli.shared.results import answer_dict
from griffin.cli.shared.sampling import sampling_from, sampling_options
from griffin.cli.shared.seen import seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from griffin.answer import Result


@click.command("ask")
@click.option(
    "--file",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="The text, of any size; - is standard input.",
)
@click.option(
    "--question", "-q", "asked", multiple=True, metavar="TEXT", help="A question. Repeatable."
)
@click.option(
    "--questions",
    "list_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with more questions, one a line.",
)
@click.option(
    "--chat/--raw",
    default=None,
    help=(
        "Put text and question into a user's turn, or leave them as they are "
        "[chat for models with a chat template or called ...-it, else raw]."
    ),
)
@model_options
@sampling_options
@click.option("--stats", is_flag=True, help="Print counts and speed on standard error.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each question.")
def command(
    path: Path,
    asked: tuple[str, ...],
    list_path: Path | None,
    chat: bool | None,
    source: ModelSource,
    stats: bool,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Read a text once and answer each question from a copy of the state after reading.

    The text may be of any size: only the model's fixed state stays in memory. All questions are
    answered together, each as if it had been asked alone.

    For a chat model, text and question are one turn of the user: the text, a blank line, the
    question. For a base model (--raw) they are the same without a turn; write the question so that
    the answer is what comes next, such as "The author's name is".
    """
    from griffin.cli.shared.progress import ReadingBar
    from griffin.text.pieces import TextSource

    questions = _questions(asked, list_path)
    fields = sampling_from(sampling)
    llm = source.llm()
    # A wrong flag is told before a long text is read.
    llm.params(**fields).check_vocabulary(llm.model.config.vocab_size)
    began = time.perf_counter()
    with opened(path) as (stream, size), ReadingBar(size) as bar:
        text = TextSource(cast(BinaryIO, TextOnly(stream, str(path))), bar.took)
        document = llm.document(text, chat=chat, progress=bar.read)
        answers = document.stream_all(questions, **fields)
    notice(text.replaced, document.hard_cuts)
    read = time.perf_counter()
    printer = Printer(questions, document.shared, llm.name, as_json)
    for which, piece, result in answers:
        printer.take(which, piece.text, result)
    if stats:
        spent = time.perf_counter() - read
        click.echo(
            f"{document.shared:,} tokens read once in {read - began:.2f} s,"
            f" {printer.generated:,} tokens of {len(questions)} answers in {spent:.2f} s:"
            f" {printer.generated / spent:,.1f} tokens/s together",
            err=True,
        )


class Printer:
    """Print answers that come at the same time one after another, each as early as it can be.

    generated: tokens of all answers that have ended.
    """

    def __init__(self, questions: Sequence[str], shared: int, model: str, as_json: bool) -> None:
        self.generated = 0
        self._questions = questions
        self._shared = shared
        self._model = model
        self._as_json = as_json
        self._turn = 0  # whose answer is being printed
        self._early = [""] * len(questions)  # text of those whose turn has not come
        self._results: dict[int, Result] = {}
        self._head()

    def take(self, which: int, text: str, result: Result | None) -> None:
        """Take a piece of an answer, and its result if it was the last one."""
        if which == self._turn:
            self._write(text)
        else:
            self._early[which] += text
        if result is not None:
            self._results[which] = result
            self.generated += result.generated_tokens
        while self._turn in self._results:
            self._foot(self._results[self._turn])
            self._turn += 1
            if self._turn < len(self._questions):
                self._head()
                self._write(self._early[self._turn])

    def _head(self) -> None:
        if not self._as_json:
            click.secho(self._questions[self._turn], bold=True)

    def _write(self, text: str) -> None:
        if text and not self._as_json:
            sys.stdout.write(seen(text))
            sys.stdout.flush()

    def _foot(self, result: Result) -> None:
        if self._as_json:
            question = self._questions[self._turn]
            fields = answer_dict(question, result, self._shared, self._model)
            click.echo(json.dumps(fields, ensure_ascii=False))
        else:
            click.echo("" if self._turn == len(self._questions) - 1 else "\n")


def _questions(asked: tuple[str, ...], path: Path | None) -> list[str]:
    questions = list(asked)
    if path is not None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path} is no UTF-8 text (byte {error.start}); expected a question a line"
            ) from None
        questions += [line.strip() for line in lines if line.strip()]
    if not questions:
        raise click.UsageError("give a question with -q, or a file of them with --questions")
    for number, question in enumerate(questions, 1):
        if not question.strip():
            raise ValueError(f"question {number} is empty; write what you want to know")
    return questions
