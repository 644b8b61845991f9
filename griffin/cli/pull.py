"""`griffin pull`: fetch a model from the Hub before it is used."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("pull")
@click.argument("model")
@click.option("--revision", help="Branch, tag or commit of the repository.")
def command(model: str, revision: str | None) -> None:
    """Fetch MODEL into the Hub's cache and print its folder; what is there already stays.

    MODEL is a repository such as google/recurrentgemma-2b-it, or that name without its owner. A
    download that broke off goes on where it was. Other verbs fetch what they need by themselves.
    """
    from griffin.checkpoints.hub import download, is_repo_id
    from griffin.checkpoints.model_names import meant, resolve

    repo = resolve(model)
    if isinstance(repo, Path) or Path(repo).expanduser().exists():
        raise click.UsageError(f"{model} is here already: {repo}")
    if not is_repo_id(repo):
        raise click.UsageError(f"{model} is no repository such as google/NAME{meant(model)}")
    click.echo(download(repo, revision))
