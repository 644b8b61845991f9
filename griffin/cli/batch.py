"""`griffin batch`: answer a file of requests, as fast as this machine can."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from griffin.cli.shared.model_source import ModelSource, model_options
from griffin.cli.shared.sizes import Size

if TYPE_CHECKING:
    from griffin.batch import Count

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("batch")
@click.argument("requests", metavar="IN.jsonl", type=_FILE)
@click.argument("answers", metavar="OUT.jsonl", type=_FILE)
@model_options
@click.option(
    "--errors", type=_FILE, help="Lines that could not be answered [default: OUT.errors.jsonl]."
)
@click.option(
    "--slots", type=click.IntRange(1), default=16, show_default=True, help="Answers at a time."
)
@click.option(
    "--chunk",
    type=click.IntRange(1),
    help="Prompt tokens that a call reads [default: 64, on a GPU 4096].",
)
@click.option(
    "--cache-bytes",
    type=Size(),
    default=256 << 20,
    show_default="256M",
    help="Prefix cache: beginnings that prompts share are read once.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")
def command(
    requests: Path,
    answers: Path,
    source: ModelSource,
    errors: Path | None,
    slots: int,
    chunk: int | None,
    cache_bytes: int,
    as_json: bool,
) -> None:
    """Answer each line of IN.jsonl and write the answers to OUT.jsonl, in the same order.

    A line is what OpenAI's batches have ({"custom_id", "method", "url", "body"}, for
    /v1/chat/completions, /v1/completions or /v1/responses), or a prompt: a JSON string, or an
    object with "prompt" or "messages". A line without a seed gets one from its custom_id, so the
    same file gives the same answers.

    Stop it at any time, in any way, and run it again: what is in OUT.jsonl is not asked twice.
    Lines that cannot be answered are in the errors file with the reason, and are tried again by the
    next run.
    """
    from griffin.batch import BatchRun, check_files, make_service

    errors = errors or answers.with_name(f"{answers.name.removesuffix('.jsonl')}.errors.jsonl")
    check_files(requests, answers, errors)
    service = make_service(
        source.llm(several=True),
        name=source.model,
        slots=slots,
        chunk=chunk,
        cache_bytes=cache_bytes,
    )
    batch = BatchRun(service, requests, answers, errors, at_once=2 * slots)
    with _Bar() as bar:
        count = batch.run(bar.show)
    if as_json:
        click.echo(json.dumps(asdict(count)))
    else:
        before = f", {count.before:,} before" if count.before else ""
        click.echo(
            f"{answers}: {count.answered:,} answered{before}; {count.prompt_tokens:,} tokens in"
            f" ({count.cached_tokens:,} of them read once for several),"
            f" {count.generated_tokens:,} out"
        )
    if count.bad:
        click.echo(f"{errors}: {count.bad:,} could not be answered", err=True)
        raise click.exceptions.Exit(1)


class _Bar:
    """Lines, tokens a second and the time left, on standard error; silent where it is no
    terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Left

        console = Console(stderr=True)
        speed = TextColumn("{task.fields[speed]}")
        self._bar = Progress(
            *(BarColumn(), MofNCompleteColumn(), speed, Left()),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._began = time.monotonic()

    def __enter__(self) -> _Bar:
        self._bar.start()
        self._task = self._bar.add_task("", total=None, speed="")
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, count: Count) -> None:
        """Show how far it is."""
        rate = count.generated_tokens / max(time.monotonic() - self._began, 1e-9)
        self._bar.update(
            self._task, total=count.lines, completed=count.done, speed=f"{rate:,.1f} tokens/s"
        )
