"""`griffin bench gpu`: one sitting on a GPU, or a dry run of it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from griffin.bench.gpu.sitting import SittingRow


@click.command("gpu")
@click.option(
    "--budget",
    type=click.FloatRange(min=0, min_open=True),
    default=420.0,
    show_default=True,
    metavar="SECONDS",
    help="No row begins that might not end in time.",
)
@click.option(
    "--only", metavar="ROWS", help="Rows to measure, with commas between them. [default: all]"
)
@click.option(
    "--rest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Measure the rows that are not done in a report: left out, failed or never begun.",
)
@click.option(
    "--plot",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="REPORT",
    help="Measure nothing; draw what a report reached of each limit into --out [gpu.png].",
)
@click.option("--dry-run", is_flag=True, help="Try every row on the CPU at toy shapes.")
@click.option("--json", "as_json", is_flag=True, help="Print the report instead of a table.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the report there, after each row.",
)
def gpu(
    budget: float,
    only: str | None,
    rest: Path | None,
    plot: Path | None,
    dry_run: bool,
    as_json: bool,
    out: Path | None,
) -> None:
    """Measure kernels, decoding, prefill, engine and training on a GPU, each beside its limit.

    Rows come in order of worth, and the report is written after each. Weights are random and made
    on the GPU; a checkout is enough: PYTHONPATH=. python3 -m griffin.cli bench gpu
    """
    interpreted(dry_run)
    from griffin.bench.gpu.rows import ROWS

    sit(ROWS, budget, only, rest, plot, dry_run, as_json, out)


def interpreted(dry_run: bool) -> None:
    """Let a dry run, which has no GPU, run kernels in Triton's interpreter; before anything that
    imports torch, for Triton asks when torch imports it."""
    if dry_run and "torch" not in sys.modules:
        os.environ.setdefault("TRITON_INTERPRET", "1")


def sit(
    rows: Sequence[SittingRow],
    budget: float,
    only: str | None,
    rest: Path | None,
    plot: Path | None,
    dry_run: bool,
    as_json: bool,
    out: Path | None,
) -> None:
    """Measure rows and report; rows that fail give exit code 1, after all others were measured.

    plot: a report to draw instead.
    """
    if plot is not None:
        from griffin.bench.gpu.plot import plot_report

        picture = out or Path("gpu.png")
        plot_report(_report(plot, "--plot"), picture)
        click.echo(f"drawn in {picture}", err=True)
        return
    import torch

    from griffin.bench import machine
    from griffin.bench.gpu.machines import device_facts
    from griffin.bench.gpu.scene import Scene
    from griffin.bench.gpu.sitting import Sitting

    chosen = _chosen(rows, only)
    if rest is not None:
        entries = _report(rest, "--rest")["rows"]
        done = {entry["row"] for entry in entries if entry["outcome"] == "done"}
        chosen = [row for row in chosen if row.name not in done]
    if not dry_run and not torch.cuda.is_available():
        raise click.UsageError(
            "there is no CUDA device here; --dry-run tries the rows on the CPU at toy shapes"
        )
    if out is not None and not out.absolute().parent.is_dir():
        raise click.UsageError(f"{out} cannot be written: there is no such folder")
    about: dict[str, Any] = {
        "command": machine.command(),
        "commit": machine.commit(),
        "machine": machine.describe(["triton"]) | device_facts(dry_run),
    }
    sitting = Sitting(
        Scene(dry_run),
        about,
        budget=budget,
        out=out,
        tell=lambda line: click.echo(line, err=True),
    )
    try:
        sitting.run(chosen)
    finally:
        if as_json:
            click.echo(json.dumps(sitting.report, allow_nan=False))
        else:
            _print(sitting.report)
    if any(entry["outcome"] == "failed" for entry in sitting.report["rows"]):
        sys.exit(1)


def _chosen(rows: Sequence[SittingRow], only: str | None) -> list[SittingRow]:
    if only is None:
        return list(rows)
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = {row.name: row for row in rows}
    if unknown := [name for name in names if name not in known] or not names:
        raise click.UsageError(
            f"--only {only}: there is no row {unknown if names else 'in it'!r}; the rows are"
            f" {', '.join(known)}"
        )
    return [row for row in rows if row.name in names]


def _report(path: Path, option: str) -> dict[str, Any]:
    """Return a sitting's report."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        whole = all({"row", "outcome"} <= entry.keys() for entry in report["rows"])
    except (ValueError, KeyError, TypeError, AttributeError):
        whole, report = False, {}
    if not whole:
        raise click.UsageError(f"{option} {path}: that is no report of a sitting")
    return report


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("row", "what"):
        table.add_column(name)
    for name in ("value", "limit", "share", "wanted"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in report["rows"]:
        for figure in entry["figures"]:
            unit, sign = figure["unit"], "<=" if figure["less"] else ">="
            wanted = figure["wanted"]
            said = "" if wanted is None else f"{sign} {wanted:,.4g} {_VERDICTS[figure['reached']]}"
            table.add_row(
                entry["row"],
                figure["what"],
                f"{figure['value']:,.4g} {unit}",
                "" if figure["limit"] is None else f"{figure['limit']:,.4g}",
                "" if figure["share"] is None else f"{figure['share']:.1%}",
                said,
            )
        if entry["outcome"] != "done":
            table.add_row(entry["row"], f"{entry['outcome']}: {entry['why']}", "", "", "", "")
    console.print(table)
    if report["dry_run"]:
        console.print("a dry run: toy shapes on the CPU, and none of these figures means anything")


_VERDICTS = {True: "yes", False: "NO", None: ""}
