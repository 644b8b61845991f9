"""The programs that ours is timed against: what is said of each before it runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from griffin.bench.program import Contender

ROOT = Path(__file__).parents[1]  # of the checkout
RIVALS = {
    rival.name: rival
    for rival in (
        Contender(
            name="transformers",
            where="benchmarks.with_transformers:Transformers",
            root=ROOT,
            packages=("transformers",),
            formats=("float32", "bf16"),
            otherwise="bf16",  # it has nothing smaller: what its user would run instead
        ),
        Contender(
            name="recurrentgemma",
            where="benchmarks.with_recurrentgemma:RecurrentGemma",
            root=ROOT,
            packages=("recurrentgemma[torch]",),
            formats=("float32", "bf16"),
            otherwise="bf16",
        ),
        Contender(
            name="llama.cpp",
            where="benchmarks.with_llama_cpp:LlamaCpp",
            root=ROOT,
            packages=("llama-cpp-python", "gguf"),
            formats=("bf16", "int8", "int4"),
        ),
    )
}


SHAPE = "The shape of its Gemma: gemma-2b or toy."


def gguf_options(*, required: bool) -> list[click.Parameter]:
    """Return the options that name llama.cpp's weights: what `llama_cpp` takes."""
    return [
        click.Option(
            ["--gguf"],
            type=click.Path(file_okay=False, path_type=Path),
            metavar="FOLDER",
            required=required,
            help="Where llama.cpp's Gemma with random weights lies; written there if it is not.",
        ),
        click.Option(["--gguf-shape"], default="gemma-2b", show_default=True, help=SHAPE),
    ]


def llama_cpp(gguf: Path, shape: str) -> Contender:
    """Return llama.cpp on random weights, which are written where they are not there yet.

    gguf: the folder of their files. shape: a name of gemma_gguf.SHAPES.
    """

    def weights(format: str) -> str:
        from benchmarks.gemma_gguf import find_or_write

        return str(find_or_write(gguf, shape, format))

    return dataclasses.replace(RIVALS["llama.cpp"], weights=weights)
