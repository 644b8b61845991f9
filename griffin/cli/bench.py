"""`griffin bench`: speed and memory, each beside the limit that this machine showed in the same
run."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from griffin.bench.measurement import Measurement, Report
    from griffin.bench.run import Plan

F = TypeVar("F", bound=Callable[..., Any])

_FORMATS = ("stored", "float32", "bf16", "bf16-packed", "int8", "int4")
_RIVALS = ("transformers", "recurrentgemma", "llama.cpp")
_OF_SOME = ("against", "gguf", "gguf_shape", "chunk", "probe", "patience")  # fields of Plan
_FILE = click.Path(dir_okay=False, path_type=Path)
_OUTPUT = (
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object a measurement."),
    click.option(
        "--plot", type=_FILE, metavar="FILE", help="Draw the result (.png, .svg or .pdf)."
    ),
)
_COMMON = (
    click.option(
        "--model",
        default="nano",
        show_default=True,
        help="Folder, archive, Hub repository or bundled name.",
    ),
    click.option(
        "--format",
        "formats",
        type=click.Choice(_FORMATS),
        multiple=True,
        help="Format of the weights; repeatable, each is measured. [default: stored]",
    ),
    click.option(
        "--threads", type=click.IntRange(1), help="CPU threads [default: one for each CPU]."
    ),
    click.option(
        "--rounds",
        type=click.IntRange(1),
        default=3,
        show_default=True,
        help="Turns a program gets.",
    ),
    click.option(
        "--tokens",
        type=click.IntRange(1),
        default=16,
        show_default=True,
        help="Tokens decoded in a round.",
    ),
    click.option(
        "--out",
        type=_FILE,
        metavar="FILE",
        help="Keep the report: command, commit, machine, results.",
    ),
    *_OUTPUT,
)
_SHARED = (
    click.option(
        "--against",
        type=click.Choice(_RIVALS),
        multiple=True,
        help="Run a rival on the same work, taking turns. Repeatable.",
    ),
    click.option(
        "--gguf",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="FOLDER",
        help="Where llama.cpp's Gemma with random weights lies; written there if it is not.",
    ),
    click.option("--gguf-shape", default="gemma-2b", show_default=True, help="gemma-2b or toy."),
    click.option(
        "--chunk",
        type=click.IntRange(1),
        default=512,
        show_default=True,
        help="Prompt tokens a call reads.",
    ),
    click.option(
        "--patience",
        type=click.FloatRange(min=0, min_open=True),
        default=600.0,
        show_default=True,
        help="Seconds a rival gets for one answer; then it is left out.",
    ),
    click.option(
        "--buffer",
        type=click.IntRange(1),
        show_default="8 times the last cache, at least 1024",
        help="MiB that the read rate is measured over; more than the caches hold.",
    ),
    click.option(
        "--probe",
        type=float,
        default=0.4,
        show_default=True,
        help="Seconds each rate is measured for.",
    ),
)
_CONTEXT = click.option(
    "--context",
    "contexts",
    type=click.IntRange(1),
    multiple=True,
    help="Tokens read before the clock starts; repeatable. [default: 512]",
)


def _shared(function: F) -> F:
    for option in reversed((*_COMMON, *_SHARED)):
        function = option(function)
    return function


def _common(function: F) -> F:
    for option in reversed(_COMMON):
        function = option(function)
    return function


def _output(function: F) -> F:
    for option in reversed(_OUTPUT):
        function = option(function)
    return function


@click.group("bench")
def command() -> None:
    """Measure speed and memory, each beside its limit.

    The limit is what this machine's sequential reads and matrix products allow, measured in the
    same run, for the bytes and operations that a token needs at least; the ratio tells how near a
    program comes. Every program runs in a process of its own, and they take turns.
    """


@command.command("decode")
@_CONTEXT
@_shared
def decode(contexts: tuple[int, ...], **options: Any) -> None:
    """Continue one sequence: the speed of an answer."""
    from griffin.bench import suites

    _run(options, lambda plan: suites.decode(plan, sorted(contexts) or [512]))


@command.command("prefill")
@click.option(
    "--length",
    "lengths",
    type=click.IntRange(1),
    multiple=True,
    help="Tokens of the prompt. [default: 512]",
)
@_shared
def prefill(lengths: tuple[int, ...], **options: Any) -> None:
    """Read a prompt: the time to the first token."""
    from griffin.bench import suites

    _run(options, lambda plan: suites.prefill(plan, lengths or [512]))


@command.command("batch")
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(1),
    multiple=True,
    help="Sequences at once; repeatable. [default: 1, 2, 4, 8]",
)
@click.option(
    "--context", type=click.IntRange(1), default=64, show_default=True, help="Tokens each has."
)
@_shared
def batch(batches: tuple[int, ...], context: int, **options: Any) -> None:
    """Continue several sequences together."""
    from griffin.bench import suites

    _run(options, lambda plan: suites.batch(plan, batches or [1, 2, 4, 8], context))


@command.command("context")
@click.option(
    "--context",
    "contexts",
    type=click.IntRange(1),
    multiple=True,
    help="Where to stop and measure; repeatable. [default: 512, 2048, 8192, 16384, 65536]",
)
@_shared
def context(contexts: tuple[int, ...], **options: Any) -> None:
    """Read on and on: speed and resident memory as the context grows."""
    from griffin.bench import suites

    _run(
        options,
        lambda plan: suites.context(plan, sorted(contexts) or [512, 2048, 8192, 16_384, 65_536]),
    )


@command.command("load")
@click.option(
    "--context", type=click.IntRange(1), default=64, show_default=True, help="Tokens read."
)
@_shared
def load(context: int, **options: Any) -> None:
    """Load the weights, reach a first token, and go on from a saved state."""
    from griffin.bench import suites

    _run(options, lambda plan: suites.load(plan, context))


@command.command("kernels")
@click.option(
    "--length",
    "lengths",
    type=click.IntRange(2),
    multiple=True,
    help="Tokens in a call, besides one. [default: 2048]",
)
@_shared
def kernels(lengths: tuple[int, ...], **options: Any) -> None:
    """Time each kernel at the model's shapes, beside a plain read or copy of as many bytes."""
    from griffin.bench import suites

    if options["against"]:
        raise click.UsageError("kernels are ours alone; drop --against")
    _run(options, lambda plan: suites.kernels(plan, lengths or [2048]))


@command.command("engine")
@click.option(
    "--requests",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="That are answered together.",
)
@click.option(
    "--context", type=click.IntRange(1), default=512, show_default=True, help="Tokens each has."
)
@_shared
def engine(requests: int, context: int, **options: Any) -> None:
    """Answer through the engine: what it costs above the plain loop, and several requests
    together."""
    from griffin.bench import engine as suite

    if options["against"]:
        raise click.UsageError("the engine is ours alone; drop --against")
    _run(options, lambda plan: suite.engine(plan, requests, context))


@command.command("conversation")
@click.option(
    "--length",
    type=click.IntRange(1),
    default=20_000,
    show_default=True,
    help="Tokens of the conversation.",
)
@click.option(
    "--follow-up",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Tokens of the next message.",
)
@click.option(
    "--cold-tokens",
    type=click.IntRange(1),
    help="Read so many of them only and reckon the rest. [default: all]",
)
@_shared
def conversation(length: int, follow_up: int, cold_tokens: int | None, **options: Any) -> None:
    """Go on with a long conversation: the first token, cold, from cache or session, and after a
    restart."""
    from griffin.bench import conversation as suite

    if options["against"]:
        raise click.UsageError("conversations are ours alone; drop --against")
    _run(options, lambda plan: suite.conversation(plan, length, follow_up, cold_tokens))


@command.command("serve")
@click.option(
    "--clients",
    type=click.IntRange(1),
    multiple=True,
    help="That ask at a time; repeatable. [default: 1, 8, 64]",
)
@click.option(
    "--requests",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Of each client in a round.",
)
@click.option(
    "--prompt", type=click.IntRange(1), default=64, show_default=True, help="Tokens of a prompt."
)
@click.option(
    "--slots", type=click.IntRange(1), default=8, show_default=True, help="Of the engine."
)
@click.option(
    "--chunk",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Prompt tokens a call reads.",
)
@click.option("--tokenizer", metavar="PATH", help="Where the model has none beside its weights.")
@_common
def serve(
    clients: tuple[int, ...],
    requests: int,
    prompt: int,
    slots: int,
    tokenizer: str | None,
    **options: Any,
) -> None:
    """Serve requests over HTTP: what the server costs above the engine.

    The same requests go to the engine by a call and to the server before it, by turns; the limit of
    the server is the engine alone. Streams, without the prefix cache and without sessions.
    """
    from griffin.bench import serve as suite

    load = suite.Load(
        clients=sorted(clients) or (1, 8, 64),
        requests=requests,
        prompt=prompt,
        slots=slots,
        tokenizer=tokenizer,
    )
    _run(options, lambda plan: suite.serve(plan, load))


@command.command("show")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@_output
def show(files: tuple[Path, ...], as_json: bool, plot: Path | None) -> None:
    """Print reports that --out kept; --plot draws them into one picture."""
    from griffin.bench.measurement import Report

    reports = [Report.open(file) for file in files]
    for file, report in zip(files, reports, strict=True):
        if as_json:
            for found in report.measurements:
                click.echo(json.dumps(found.to_dict()))
        else:
            click.secho(f"{file}: {report.command}", bold=True)
            where = ", ".join(f"{key} {value}" for key, value in report.machine.items())
            click.echo(f"commit {report.commit}; {where}")
            _print(report)
    if plot is not None:
        _draw([found for report in reports for found in report.measurements], plot)


def _run(options: dict[str, Any], suite: Callable[[Plan], Iterator[Measurement]]) -> None:
    """Make the plan, carry it out, and give out what was measured in the ways that were asked
    for."""
    from griffin.bench import machine
    from griffin.bench.measurement import Report
    from griffin.bench.run import Plan

    if "llama.cpp" in options.get("against", ()) and options["gguf"] is None:
        raise click.UsageError(
            "--against llama.cpp needs --gguf FOLDER, where its weights are or go"
        )
    report = Report(
        command=shlex.join(["griffin", *sys.argv[1:]]),
        commit=machine.commit(),
        machine=machine.describe(),
    )
    plan = Plan(
        model=options["model"],
        report=report,
        formats=options["formats"] or ("stored",),
        threads=options["threads"] or machine.cores(),
        rounds=options["rounds"],
        tokens=options["tokens"],
        **{name: options[name] for name in _OF_SOME if name in options},
    )
    if options.get("buffer"):
        plan.buffer = options["buffer"] << 20
    for path in (options["out"], options["plot"]):
        if path is not None and not path.absolute().parent.is_dir():
            raise ValueError(
                f"{path} cannot be written: there is no folder {path.absolute().parent}"
            )
    with _status() as tell:
        for found in suite(plan):
            if options["as_json"]:
                click.echo(json.dumps(found.to_dict()))
            tell(
                f"measured {found.what} of {found.program}, {found.format}, at {found.context:,}"
                " tokens"
            )
    if options["as_json"]:
        for note in report.notes:
            click.echo(f"note: {note}", err=True)
    else:
        _print(report)
    if options["out"] is not None:
        report.save(options["out"])
    if options["plot"] is not None:
        _draw(report.measurements, options["plot"])


@contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """Show on standard error what was measured last, where that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda _line: None
        return
    with console.status("starting") as status:
        yield status.update


def _print(report: Report) -> None:
    from rich.console import Console

    from griffin.bench.table import rates, table

    # A table is not broken to the width of a pipe that has none.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    if report.measurements:
        console.print(table(report.measurements))
    if report.rates:
        console.print()
        console.print(rates(report))
    for note in report.notes:
        console.print(f"note: {note}", markup=False)


def _draw(measurements: list[Measurement], path: Path) -> None:
    from griffin.bench.plot import plot

    plot(measurements, path)
