"""`griffin rm`: take a downloaded model away."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("rm")
@click.argument("model")
@click.option("--revision", help="Only this branch, tag or commit.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(model: str, revision: str | None, yes: bool) -> None:
    """Remove MODEL from the Hub's cache, which other programs use too; `griffin pull` fetches it
    again.

    Folders outside of the cache are never touched, nor are conversations (`griffin state rm`).
    """
    from griffin.checkpoints.hub_cache import cached_models, remove_cached
    from griffin.checkpoints.model_names import resolve
    from griffin.cli.shared.sizes import binary

    repo = resolve(model)
    if isinstance(repo, Path) or Path(repo).expanduser().exists():
        raise click.UsageError(f"{repo} was not downloaded; rm takes a model of `griffin models`")
    if not yes and any(one.repo == repo for one in cached_models()):
        click.confirm(f"remove {repo} from this machine?", abort=True, err=True)
    click.echo(f"{repo}: {binary(remove_cached(repo, revision))} freed")
