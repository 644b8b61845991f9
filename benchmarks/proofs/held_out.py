"""What a recipe holds out, and models that read it: what the proofs on nano have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from griffin import checkpoints
from griffin.evaluate.positions import PositionSpan, measure_positions
from griffin.llm import LLM
from griffin.model import Griffin
from griffin.text import Tokenizer
from griffin.train.bundled import find_recipe
from griffin.train.data.held_out import held_out_of_recipe
from griffin.train.recipe import Recipe, load_recipe


def read_recipe(recipe: str) -> Recipe:
    """Return a recipe by its name or file."""
    return load_recipe(find_recipe(recipe))


def held_out_ids(recipe: Recipe, tokenizer: Tokenizer) -> list[list[int]]:
    """Return the documents that a recipe holds out, each from BOS to EOS, in the recipe's order."""
    held = held_out_of_recipe(recipe, tokenizer)
    return [each.ids.tolist() for documents in held.documents.values() for each in documents]


def open_model(folder: str, window: int | None = None) -> Griffin:
    """Return a model in float32, its weights as they are stored.

    window: what its attention sees back, in place of its own.
    """
    model = checkpoints.load_model(folder, dtype=torch.float32)
    if window is not None:
        with torch.device("meta"):
            opened = Griffin(model.config.replace(attention_window_size=window))
        opened.load_state_dict(model.state_dict(), assign=True)
        model = opened
    return model.eval().requires_grad_(False)


def read_texts(
    model: Griffin,
    tokenizer: Tokenizer,
    texts: Sequence[Sequence[int]],
    edges: Sequence[int],
    say: Callable[[str], object],
) -> list[dict[str, Any]]:
    """Return what texts of ids cost by position, as plain values of a PositionSpan each.

    say: told how much is read, now and then.
    """
    total, done = sum(map(len, texts)), 0

    def advance(tokens: int) -> None:
        nonlocal done
        if (done + tokens) * 10 // total > done * 10 // total:
            say(f"{done + tokens:,} of {total:,} tokens")
        done += tokens

    spans = measure_positions(LLM(model, tokenizer), texts, edges, advance=advance)
    return [vars(span) for span in spans]


def spans_of(runs: Sequence[Mapping[str, Any]]) -> list[PositionSpan]:
    """Return the spans of several runs together."""
    spans = [PositionSpan(**span) for span in runs[0]["spans"]]
    for run in runs[1:]:
        for span, more in zip(spans, run["spans"], strict=True):
            span.tokens += more["tokens"]
            span.bytes += more["bytes"]
            span.nats += more["nats"]
    return spans


def bits_of(spans: Sequence[PositionSpan]) -> float:
    """Return the bits per byte of several spans together; nan where there is nothing in them."""
    size = sum(span.bytes for span in spans)
    return sum(span.nats for span in spans) / math.log(2) / size if size else math.nan


def digest_of(folder: str | None) -> str | None:
    """Return the digest of a model's weights; None where there is no model."""
    return None if folder is None else checkpoints.open(folder).digest()
