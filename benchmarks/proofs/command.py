"""`python -m benchmarks induction`, ...: a command for each proof."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("induction")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the results."
)
def induction(out: Path) -> None:
    """The paper's induction heads: Griffin, Hawk and a transformer far beyond the length they were
    trained at; what is there is not run again."""
    from benchmarks.proofs.induction import compare, table

    click.echo(table(compare(out, lambda line: click.echo(line, err=True))))
