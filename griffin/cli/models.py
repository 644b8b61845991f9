"""`griffin models`: which models are here, their size, format and whether they are whole."""

from __future__ import annotations

import json
import sys
from typing import Any

import click


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a model.")
def command(as_json: bool) -> None:
    """List the models that can be used without a download.

    Those of this package, and those in the Hub's cache (HF_HOME says where that is). `griffin pull`
    fetches one, `griffin rm` removes one.
    """
    found = list(_found())
    if as_json:
        for one in found:
            click.echo(json.dumps(one))
        return
    from rich.console import Console
    from rich.table import Table

    from griffin.checkpoints.model_names import RELEASED
    from griffin.cli.shared.sizes import binary

    table = Table(box=None, pad_edge=False)
    for title in ("model", "format", "size", "state"):
        table.add_column(title, justify="right" if title == "size" else "left", no_wrap=True)
    for one in found:
        name = one["model"] + (f" at {one['revision'][:8]}" if one["revision"] else "")
        state = f"lacks {len(one['missing'])} files" if one["missing"] else one["source"]
        table.add_row(name, one["format"], binary(one["bytes"]), state)
    # A table is not cut to the width of a pipe that has none.
    Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(table)
    here = {one["model"].rpartition("/")[2] for one in found}
    if more := [name for name in RELEASED if name not in here]:
        click.echo(f"to fetch with `griffin pull NAME`: {', '.join(more)}")


def _found() -> Any:
    from griffin import checkpoints
    from griffin.checkpoints.hub_cache import cached_models
    from griffin.checkpoints.model_names import bundled

    for name in bundled():
        checkpoint = checkpoints.open(name)
        packed = checkpoint.quantization
        format = packed.format if packed else str(checkpoint.own_dtype).removeprefix("torch.")
        yield {
            "model": name,
            "revision": "",
            "format": format,
            "bytes": checkpoint.nbytes,
            "missing": [],
            "source": "in this package",
            "path": str(checkpoint.folder),
        }
    for one in cached_models():
        yield {
            "model": one.repo,
            "revision": one.revision,
            "format": one.format,
            "bytes": one.nbytes,
            "missing": list(one.missing),
            "source": "downloaded",
            "path": str(one.folder),
        }
