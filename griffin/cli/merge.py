"""`griffin merge`: a model and an adapter as one checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("merge")
@click.argument("model")
@click.argument("adapter", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path))
@click.option("--dtype", help="Type of the result (bfloat16, float32, ...); as stored if omitted.")
@click.option("--revision", help="Branch, tag or commit, where MODEL is a repository.")
@click.option(
    "--max-shard-size", default="5GB", show_default=True, help="Largest safetensors file."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    model: str,
    adapter: Path,
    dst: Path,
    dtype: str | None,
    revision: str | None,
    max_shard_size: str,
    as_json: bool,
) -> None:
    """Write MODEL with the LoRA of the folder ADAPTER added to its weights to DST.

    MODEL is a folder, an archive, a repository or a bundled name; DST must not exist yet, and
    appears only when it is complete. One that is quantized comes out unpacked: quantize the result
    again. Tensors are streamed, a few in memory at a time.
    """
    from griffin.adapters import check_base, merge_into, open_adapter
    from griffin.checkpoints import convert
    from griffin.cli.shared.model_source import ModelSource
    from griffin.cli.shared.progress import WorkBar

    given = open_adapter(adapter)
    source = ModelSource(model=model, revision=revision).checkpoint()
    change = merge_into(given, source.config)
    check_base([given], source, model)
    with WorkBar("merging") as advance:
        made = convert(
            source, dst, "huggingface", dtype, advance, max_shard_size=max_shard_size, change=change
        )
    for note in made.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        fields = {
            "path": str(made.path),
            "adapter": given.name,
            "tensors": made.tensors,
            "bytes": made.nbytes,
            "copied": list(made.copied),
            "notes": list(made.notes),
        }
        click.echo(json.dumps(fields))
        return
    click.echo(f"{made.path}: {model} with {given.name}, {made.nbytes / 1e9:.3f} GB")
