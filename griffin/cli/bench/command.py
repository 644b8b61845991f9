"""`griffin bench`: speed and memory, each beside the limit of this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from griffin.bench.program import OURS
from griffin.cli.bench.draft import draft
from griffin.cli.bench.gpu import gpu
from griffin.cli.bench.report import deliver, draw, print_report
from griffin.cli.bench.train import train
from griffin.cli.shared.kernels import say_if_not_compiled
from griffin.cli.shared.pictures import Picture

if TYPE_CHECKING:
    from griffin.bench.measurement import Measurement
    from griffin.bench.run import Plan

Option = Callable[[Any], Any]
_FILE = click.Path(dir_okay=False, path_type=Path)
_STOPS = (512, 2048, 8192, 16_384, 65_536)


def number(flag: str, help: str, default: int | None = None, least: int = 1) -> Option:
    """Return an option that takes a whole number; None where it is left out and has no default."""
    kind = click.IntRange(least)
    return click.option(flag, type=kind, default=default, show_default=True, help=help)


def numbers(flag: str, name: str, help: str, *default: int, least: int = 1) -> Option:
    """Return an option that takes a whole number and may be repeated; `name`: of its tuple."""
    return click.option(
        flag,
        name,
        type=click.IntRange(least),
        multiple=True,
        default=default,
        show_default=True,
        help=f"{help}; repeatable.",
    )


OUTPUT = (
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object a measurement."),
    click.option(
        "--plot", type=Picture(), metavar="FILE", help="Draw the result (.png, .svg or .pdf)."
    ),
)
RUN = (
    click.option(
        "--model",
        default="nano",
        show_default=True,
        help="Folder, archive, Hub repository or bundled name.",
    ),
    click.option(
        "--format",
        "formats",
        type=click.Choice(OURS.formats),
        multiple=True,
        default=("stored",),
        show_default=True,
        help="Format of the weights; repeatable, each is measured.",
    ),
    number("--threads", "CPU threads [default: one for each CPU]."),
    number("--rounds", "Turns a program gets.", 3),
    number("--tokens", "Tokens decoded in a round.", 16),
    click.option(
        "--out",
        type=_FILE,
        metavar="FILE",
        help="Keep the report: command, commit, machine, results.",
    ),
    *OUTPUT,
)
MACHINE = (
    number("--chunk", "Prompt tokens a call reads.", 512),
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


@click.group("bench")
def command() -> None:
    """Measure speed and memory, each beside its limit.

    The limit is what this machine's sequential reads and matrix products allow, measured in the
    same run, for the bytes and operations that a token needs at least; the ratio tells how near a
    program comes. Every program runs in a process of its own, and they take turns.
    """


def suite(where: str, help: str, *options: Option) -> click.Command:
    """Return the command of a suite of measurements, named as its function.

    where:   "module:function", imported when it runs. It is called with the run's Plan and with the
             suite's own options by their names, and yields measurements.
    options: the suite's own, besides those of every run; one named as a field of Plan sets it.
    """
    module, _, name = where.partition(":")

    def run(**given: Any) -> None:
        _run(getattr(import_module(module), name), given)

    for option in reversed((*options, *RUN)):
        run = option(run)
    return click.command(name, help=help)(run)


# function -> help, options
_OURS: dict[str, tuple[str, tuple[Option, ...]]] = {
    "suites:decode": (
        "Continue one sequence: the speed of an answer.",
        (numbers("--context", "contexts", "Tokens read before the clock starts", 512),),
    ),
    "suites:prefill": (
        "Read a prompt: the time to the first token.",
        (numbers("--length", "lengths", "Tokens of the prompt", 512),),
    ),
    "suites:batch": (
        "Continue several sequences together.",
        (
            numbers("--batch", "batches", "Sequences at once", 1, 2, 4, 8),
            number("--context", "Tokens each has.", 64),
        ),
    ),
    "suites:context": (
        "Read on and on: speed and resident memory as the context grows.",
        (numbers("--context", "contexts", "Where to stop and measure", *_STOPS),),
    ),
    "suites:load": (
        "Load the weights, reach a first token, and go on from a saved state.",
        (number("--context", "Tokens read.", 64),),
    ),
    "suites:kernels": (
        "Time each kernel at the model's shapes, beside a plain read or copy of as many bytes.",
        (numbers("--length", "lengths", "Tokens in a call, besides one", 2048, least=2),),
    ),
    "engine:engine": (
        "Answer through the engine: what it costs above the plain loop, and several requests"
        " together.",
        (
            number("--requests", "That are answered together.", 8),
            number("--context", "Tokens each has.", 512),
        ),
    ),
    "conversation:conversation": (
        "Go on with a long conversation: the first token, cold, from cache or session, and after"
        " a restart.",
        (
            number("--length", "Tokens of the conversation.", 20_000),
            number("--follow-up", "Tokens of the next message.", 100),
            number(
                "--cold-tokens", "Read so many of them only and reckon the rest. [default: all]"
            ),
        ),
    ),
}
for _where, (_help, _options) in _OURS.items():
    command.add_command(suite(f"griffin.bench.{_where}", _help, *_options, *MACHINE))
command.add_command(train)
command.add_command(gpu)
command.add_command(draft)


@command.command("show")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@OUTPUT[0]
@OUTPUT[1]
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
            print_report(report)
    if plot is not None:
        draw([found for report in reports for found in report.measurements], plot)


def _run(measure: Callable[..., Iterator[Measurement]], given: dict[str, Any]) -> None:
    """Make the plan, carry it out, and report in the ways that were asked for."""
    as_json, out, plot = (given.pop(name) for name in ("as_json", "out", "plot"))
    if out is not None and not out.absolute().parent.is_dir():
        raise ValueError(f"{out} cannot be written: there is no folder {out.absolute().parent}")
    say_if_not_compiled()
    plan = _plan(given)
    report = plan.report
    with _status() as tell:
        for found in measure(plan, **given):
            if as_json:
                click.echo(json.dumps(found.to_dict()))
            tell(
                f"measured {found.what} of {found.program}, {found.format}, at {found.context:,}"
                " tokens"
            )
    deliver(report, as_json, out)
    if plot is not None:
        draw(report.measurements, plot)


def _plan(given: dict[str, Any]) -> Plan:
    """Take the fields of a plan out of what was given."""
    from dataclasses import fields

    from griffin.bench import machine
    from griffin.bench.measurement import Report
    from griffin.bench.run import Plan

    found = {f.name: given.pop(f.name) for f in fields(Plan) if f.name in given}
    found["threads"] = found["threads"] or machine.cores()
    if found.get("buffer") is not None:
        found["buffer"] <<= 20
    packages = [package for other in found.get("against", ()) for package in other.packages]
    report = Report(
        command=machine.command(), commit=machine.commit(), machine=machine.describe(packages)
    )
    return Plan(report=report, **found)


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
