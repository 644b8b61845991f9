"""griffin convert: a checkpoint in another layout, or random weights of true shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command("convert")
@click.argument("paths", nargs=-1, required=True, metavar="[SRC] DST")
@click.option(
    "--to",
    type=click.Choice(["huggingface", "deepmind-torch", "deepmind-flax"]),
    default="huggingface",
    show_default=True,
    help="Layout of the result.",
)
@click.option("--dtype", help="Type of the result (bfloat16, float32, ...); as stored if omitted.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON with what SRC does not say: a config.json, or fields of GriffinConfig such as "
    "attention_window_size, logits_soft_cap, scale_embeddings.",
)
@click.option("--revision", help="Branch, tag or commit, where SRC is a repository.")
@click.option(
    "--max-shard-size", default="5GB", show_default=True, help="Largest safetensors file."
)
@click.option(
    "--random", "preset", metavar="PRESET", help="Write random weights of this shape; takes no SRC."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of --random."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    paths: tuple[str, ...],
    to: Any,
    dtype: str | None,
    config_file: Path | None,
    revision: str | None,
    max_shard_size: str,
    preset: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Convert a checkpoint between Hugging Face's and DeepMind's layouts.

    SRC is a folder, an archive or a repository (google/recurrentgemma-2b); DST must not exist yet.
    Tensors are streamed: a 9B model converts in a few GB of memory. DST appears only when it is
    complete.
    """
    expected = 1 if preset else 2
    if len(paths) != expected:
        wants = "DST alone (--random takes no SRC)" if preset else "SRC and DST"
        usage = "--random PRESET DST" if preset else "SRC DST"
        raise click.UsageError(f"expected {wants}, not {' '.join(paths)}: griffin convert {usage}")
    from griffin.checkpoints import convert, random_checkpoint
    from griffin.checkpoints.models import parse_dtype
    from griffin.cli.shared.progress import WorkBar
    from griffin.foreign import read_object
    from griffin.model import GriffinConfig
    from griffin.train.data.bpe import SMALLEST, save_bpe, train_bpe

    if preset:
        if config_file or revision:
            raise click.UsageError(
                "--random takes its shape from the preset; drop --config and --revision"
            )
        shape = GriffinConfig.preset(preset)
        source: Any = random_checkpoint(shape, parse_dtype(dtype or "bfloat16"), seed)
    else:
        source = paths[0]
    config = None if config_file is None else read_object(config_file)
    with WorkBar("converting") as advance:
        made = convert(
            source,
            paths[-1],
            to,
            dtype,
            advance,
            config=config,
            revision=revision,
            max_shard_size=max_shard_size,
        )
    spoken = preset and made.path.is_dir() and made.config.vocab_size >= SMALLEST
    if spoken:  # random weights say bytes at random, but they say them
        save_bpe(train_bpe((), SMALLEST), made.path)
    for note in made.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        fields = {
            "path": str(made.path),
            "layout": made.layout,
            "tensors": made.tensors,
            "bytes": made.nbytes,
            "copied": list(made.copied),
            "notes": list(made.notes),
            "config": made.config.to_dict(),
        }
        click.echo(json.dumps(fields))
        return
    also = f", with {', '.join(made.copied)}" if made.copied else ""
    also += ", with a tokenizer of bytes" if spoken else ""
    click.echo(
        f"{made.path}: {made.layout}, {made.tensors} tensors, {made.nbytes / 1e9:.3f} GB{also}"
    )
