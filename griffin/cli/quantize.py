"""`griffin quantize`: a checkpoint in int8 or int4, with or without sample text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from griffin.cli.shared.model_source import ModelSource, set_threads

if TYPE_CHECKING:
    from torch import Tensor

    from griffin.checkpoints import Checkpoint


@click.command("quantize")
@click.argument("src")
@click.argument("dst", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["int8", "int4", "bf16"]),
    required=True,
    help=(
        "int8: 8 bits, one scale for each output row. int4: 4.5 bits, one scale for 32 inputs."
        " bf16: values unchanged, laid out for the kernels."
    ),
)
@click.option(
    "--head",
    type=click.Choice(["int8", "int4", "bf16"]),
    help="Of the head, and of the embedding where the two are one [as --format].",
)
@click.option(
    "--screen",
    is_flag=True,
    help="Beside the head store 3 bits of each of its weights: a CPU then reads few of its rows.",
)
@click.option(
    "--calibrate",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="TEXT",
    help=(
        "Round so that the model changes least on the text in this file, which should be typical of"
        " what it will read."
    ),
)
@click.option(
    "--calibrate-tokens",
    type=click.IntRange(256),
    default=32_768,
    show_default=True,
    help="Read at most this many tokens of TEXT.",
)
@click.option("--tokenizer", metavar="PATH", help="Tokenizer, if it is not beside the weights.")
@click.option("--revision", help="Branch, tag or commit, where SRC is a repository.")
@click.option(
    "--max-shard-size", default="5GB", show_default=True, help="Largest safetensors file."
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads [default: torch's choice].")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    src: str,
    dst: Path,
    kind: str,
    head: str | None,
    screen: bool,
    calibrate: Path | None,
    calibrate_tokens: int,
    tokenizer: str | None,
    revision: str | None,
    max_shard_size: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Write SRC with smaller weights to DST, which must not exist yet.

    SRC is a folder, an archive, a repository or a bundled name. Every linear layer, the embedding
    and the head are rounded; RG-LRU parameters, norms, the convolution and biases stay. The result
    loads like any other checkpoint; DST appears only when it is complete.
    """
    from griffin import checkpoints
    from griffin.cli.shared.progress import WorkBar
    from griffin.quant import get_format

    for name in (kind, head or kind):
        if calibrate is not None and get_format(name).grid is None:
            raise click.UsageError(f"{name} has nothing to calibrate; drop --calibrate")
    set_threads(threads)
    source = ModelSource(model=src, revision=revision).checkpoint()
    sample = None if calibrate is None else _sample(source, tokenizer, calibrate, calibrate_tokens)
    with WorkBar("quantizing", in_bytes=sample is None) as advance:
        made = checkpoints.quantize(
            source,
            dst,
            kind,
            sample,
            advance,
            head=head,
            screen=screen,
            max_shard_size=max_shard_size,
        )
    for note in made.notes:
        click.echo(f"note: {note}", err=True)
    before = source.nbytes
    if as_json:
        fields: dict[str, Any] = {
            "path": str(made.path),
            "format": kind,
            "head": head or kind,
            "screen": screen,
            "calibrated_on": 0 if sample is None else sample.numel(),
            "tensors": made.tensors,
            "bytes": made.nbytes,
            "bytes_before": before,
            "copied": list(made.copied),
            "notes": list(made.notes),
        }
        click.echo(json.dumps(fields))
        return
    what = (f"{kind}, head {head}" if head else kind) + (", with a screen" if screen else "")
    how = "" if sample is None else f", calibrated on {sample.numel():,} tokens"
    share = made.nbytes / before
    click.echo(
        f"{made.path}: {what}{how}, {made.nbytes / 1e9:.3f} GB, {share:.0%} of"
        f" {before / 1e9:.3f} GB"
    )


def _sample(source: Checkpoint, tokenizer: str | None, file: Path, limit: int) -> Tensor:
    """Return (R, T) ids of the text's beginning, each row with BOS before it."""
    import torch

    from griffin.cli.shared.reading import TextOnly
    from griffin.text import Tokenizer, find_tokenizer

    text = Tokenizer.open(tokenizer if tokenizer is not None else find_tokenizer(source.folder))
    # More characters than that make no difference: a token is rarely longer than 16 bytes of text.
    with file.open("rb") as stream:
        data = TextOnly(stream, str(file)).read(16 * limit)
    ids = text.encode(data.decode("utf-8", errors="replace"), bos=False)[:limit]
    length = min(1023, len(ids))
    if length < 255:
        raise ValueError(
            f"{file} has {len(ids)} tokens; calibration needs 255, better ten thousand"
        )
    rows = len(ids) // length
    body = torch.tensor(ids[: rows * length]).view(rows, length)
    return torch.cat([torch.full((rows, 1), text.bos_id), body], dim=1)
