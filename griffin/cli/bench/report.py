"""A finished report of `griffin bench`: printed, drawn, kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from griffin.bench.measurement import Measurement, Report


def deliver(report: Report, as_json: bool, out: Path | None) -> None:
    """Print a finished report, whose measurements were printed before if as JSON; keep it in a
    file."""
    if as_json:
        for note in report.notes:
            click.echo(f"note: {note}", err=True)
    else:
        print_report(report)
    if out is not None:
        report.save(out)


def print_report(report: Report) -> None:
    """Print a report's tables for people."""
    from rich.console import Console

    from griffin.bench.table import groups, rates, table

    # A table is not broken to the width of a pipe that has none.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    if report.measurements:
        console.print(table(report.measurements))
    if any(m.groups for m in report.measurements):
        console.print()
        console.print(groups(report.measurements))
    if report.rates:
        console.print()
        console.print(rates(report))
    for note in report.notes:
        console.print(f"note: {note}", markup=False)


def draw(measurements: list[Measurement], path: Path) -> None:
    """Draw measurements into a picture."""
    from griffin.bench.plot import plot

    plot(measurements, path)
