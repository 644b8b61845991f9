"""`python -m benchmarks draft`: what drafts save, ours beside llama.cpp's."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import click

from benchmarks.rivals import gguf_options, llama_cpp
from griffin.cli.bench.command import number


@click.command("draft")
@click.option("--model", "-m", required=True, metavar="NAME")
@click.option(
    "--quantize",
    type=click.Choice(["int8", "int4"]),
    help="Round the weights first. [default: as they are stored, int8 or int4]",
)
@click.option("--prompt", type=click.IntRange(1), default=64, show_default=True)
@click.option("--tokens", type=click.IntRange(4), default=256, show_default=True)
@number("--threads", "CPU threads [default: one for each CPU].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def draft(
    model: str,
    quantize: str | None,
    gguf: Path,
    gguf_shape: str,
    prompt: int,
    tokens: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Drafts of ours beside llama.cpp's lookup in the prompt, on the same texts, one row."""
    import torch

    import griffin
    from benchmarks.lookup import both
    from benchmarks.with_llama_cpp import LlamaCpp
    from griffin import checkpoints
    from griffin.bench import machine
    from griffin.bench.program import Options
    from griffin.checkpoints.model_names import resolve

    rival = llama_cpp(gguf, gguf_shape)
    if find_spec("llama_cpp") is None or find_spec("gguf") is None:
        raise click.UsageError(
            f"llama.cpp cannot run here; install it with `pip install {' '.join(rival.packages)}`"
        )
    threads = threads or machine.cores()
    torch.set_num_threads(threads)
    assert rival.weights is not None
    stored = checkpoints.open(resolve(model)).quantization
    format = quantize or (stored.format if stored is not None else None)
    if format not in rival.formats:
        raise click.UsageError(f"{model} is not quantized: give --quantize int8 or int4")
    weights = rival.weights(format)
    theirs = LlamaCpp(Options(model=weights, format=format, threads=threads, chunk=512))
    ours = griffin.load(model, quantize=quantize)
    found: list[dict[str, object]] = []
    for name, each in both(ours, theirs, prompt=prompt, tokens=tokens):
        found.append({"program": name, **asdict(each), "faster": each.faster})
        click.echo(  # as it comes: a large model takes minutes for a text
            f"{name}, {each.name}: {each.tokens_per_second[0]:.2f} tokens/s,"
            f" {each.accepted} of {each.proposed} drafts right, {each.faster:.2f} times",
            err=as_json,
        )
    if as_json:
        about = {"command": machine.command(), "commit": machine.commit()}
        about |= {"machine": machine.describe(rival.packages)}
        click.echo(json.dumps(about | {"texts": found}, indent=1))


draft.params += gguf_options(required=True)
