"""`python -m benchmarks induction`, ...: a command for each proof."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_FOLDER = click.Path(file_okay=False, path_type=Path)
_TRANSFORMER = "As `griffin train nano-transformer` makes it; without it the Griffin reads alone."


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what the proofs on a Griffin and a transformer of its size are given."""
    for option in reversed((
        click.option("--griffin", default="nano", show_default=True, metavar="DIR"),
        click.option("--transformer", metavar="DIR", help=_TRANSFORMER),
        click.option("--out", type=_FOLDER, required=True, help="Folder of the results."),
        click.option("--recipe", default="nano", show_default=True, help="Whose held-out files."),
        click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True),
    )):  # fmt: skip
        command = option(command)
    return command


def _teller(out: Path) -> Callable[[str], None]:
    """Return what tells how far a proof is, and keeps what it told in `out`/log.txt."""

    def tell(line: str) -> None:
        click.echo(line, err=True)
        with (out / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%F %T')} {line}\n")

    return tell


@click.command("induction")
@click.option("--out", type=_FOLDER, required=True, help="Folder of the results.")
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Choice(["Griffin", "Hawk", "MQA"]),
    default=["Griffin", "Hawk", "MQA"],
    help="Only this one, as a process of its own on the same folder; again for several.",
)
def induction(out: Path, models: tuple[str, ...]) -> None:
    """The paper's induction heads: Griffin, Hawk and a transformer far beyond the length they were
    trained at; what is there is not run again."""
    from benchmarks.proofs.induction import compare, table

    click.echo(table(compare(out, _teller(out), models=models)))


@click.command("extrapolation")
@_options
@click.option(
    "--orders",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="In which files are joined.",
)
def extrapolation(out: Path, orders: int, threads: int, **models: Any) -> None:
    """Bits per byte by position, to 32,768 tokens, of models trained on 1,024: a Griffin, and a
    transformer with its window as trained and opened; what is there is not run again."""
    import torch

    from benchmarks.proofs.extrapolation import compare, table

    torch.set_num_threads(threads)
    click.echo(table(compare(out, say=_teller(out), orders=orders, **models)))


@click.command("bits")
@_options
def bits(out: Path, threads: int, **models: Any) -> None:
    """Bits per byte of held-out files with weights in int8 and int4, calibrated or not, of a
    Griffin and of a transformer; what is there is not run again."""
    import torch

    from benchmarks.proofs.bits import compare, table

    torch.set_num_threads(threads)
    click.echo(table(compare(out, say=_teller(out), **models)))


@click.command("screen")
@click.option("--griffin", default="nano", show_default=True, metavar="DIR")
@click.option("--recipe", default="nano", show_default=True, help="Whose held-out files.")
@click.option("--tokens", type=click.IntRange(min=1), default=8192, show_default=True)
@click.option("--out", type=_FOLDER, required=True, help="Folder of the results.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
def screen(out: Path, threads: int, **given: Any) -> None:
    """What is chosen behind a screened head beside the whole one, at so many positions of held-out
    files."""
    import torch

    from benchmarks.proofs.screen import compare, table

    torch.set_num_threads(threads)
    click.echo(table(compare(out, say=_teller(out), **given)))
