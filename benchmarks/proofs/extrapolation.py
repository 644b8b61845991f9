"""Extrapolation: bits per byte far beyond the length of training, by position, without training.

The Griffin paper (arXiv:2402.19427, section 6.1 and figure 5) reads texts up to 32,768 tokens with
models that were trained on 2,048: Griffin and Hawk go on getting better, the transformer, whose
positions are rotations, fails. Here read the bundled nano, trained on rows of 1,024, and a
transformer of its size that was trained on the same rows: with the window of its training, so that
it never sees a distance it does not know, and with its window opened to all of the text. The texts
are the files that the recipe holds out, joined in some order to streams that no training row was as
long as. Another order puts other files at the far positions: how the figures differ between orders
says how much of them is the files' doing.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.proofs.held_out import (
    digest_of,
    held_out_ids,
    open_model,
    read_recipe,
    read_texts,
    spans_of,
)
from benchmarks.proofs.runs import Runs
from griffin.evaluate.drawing import draw_positions
from griffin.evaluate.positions import PositionSpan, doublings, streams
from griffin.loading import load_tokenizer

LENGTH, FIRST = 32_768, 256
ORDERS = 3


def compare(
    out: Path,
    griffin: str,
    transformer: str | None,
    say: Callable[[str], object],
    *,
    recipe: str = "nano",
    orders: int = ORDERS,
    length: int = LENGTH,
    first: int = FIRST,
) -> dict[str, Any]:
    """Run what `out`/results.json does not hold yet, draw positions.png beside it, and return all.

    griffin, transformer: folders of models, or names of bundled ones; without the latter the former
                          reads alone.
    recipe:               whose held-out files are read.
    orders:               in which they are joined.
    length:               of a stream, in tokens.
    first:                where the second span of positions begins; each further one is twice as
                          long as the last.
    Raises ValueError where the files fill no stream.
    """
    models: dict[str, tuple[str, int | None]] = {"Griffin": (griffin, None)}
    if transformer is not None:
        models |= {"transformer": (transformer, None), "transformer, opened": (transformer, length)}
    settings = {"recipe": recipe, "length": length, "first": first}
    digests = {"griffin": digest_of(griffin), "transformer": digest_of(transformer)}
    runs = Runs(out, **settings, **digests)
    texts = dict[str, list[list[int]]]()

    def read(name: str, order: int) -> dict[str, Any]:
        folder, window = models[name]
        tokenizer = load_tokenizer(folder)
        if folder not in texts:
            texts[folder] = held_out_ids(read_recipe(recipe), tokenizer)
        documents = Random(order).sample(texts[folder], len(texts[folder]))
        joined = list(streams(documents, length))
        if not joined:
            raise ValueError(
                f"the held-out files of {recipe} have {sum(map(len, documents)):,} tokens, fewer"
                f" than one stream of {length:,}; hold out more, or read shorter ones"
            )
        model = open_model(folder, window)
        told = f"{name}, order {order + 1} of {orders}"
        spans = read_texts(
            model, tokenizer, joined, doublings(length, first), lambda line: say(f"{told}: {line}")
        )
        return {
            "window": model.config.attention_window_size,
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "streams": len(joined),
            "spans": spans,
        }

    for order in range(orders):
        for name in models:
            runs.get({"model": name, "order": order}, partial(read, name, order))
    lines, windows = by_model(runs.found), dict[str, int]()
    for run in runs.found["runs"]:
        if run["window"] < length:
            windows[run["model"]] = run["window"]
    draw_positions(lines, windows, out / "positions.png")
    return runs.found


def by_model(found: dict[str, Any]) -> dict[str, list[PositionSpan]]:
    """Return what each model's bytes cost by position, in all orders together."""
    names = dict.fromkeys(run["model"] for run in found["runs"])
    return {name: spans_of([r for r in found["runs"] if r["model"] == name]) for name in names}


def table(found: dict[str, Any]) -> str:
    """Return bits per byte by position as Markdown, with the deviation between orders."""
    lines = by_model(found)
    first = next(iter(lines.values()))
    head = [f"{span.begin:,} to {span.end - 1:,}" for span in first]
    rows = ["| | window | " + " | ".join(head) + " |", "|---" * (len(head) + 2) + "|"]
    for name, spans in lines.items():
        of = [run for run in found["runs"] if run["model"] == name]
        alone = [[PositionSpan(**each).bits_per_byte for each in run["spans"]] for run in of]
        cells = [
            f"{span.bits_per_byte:.3f}" + (f" ± {statistics.stdev(a):.3f}" if len(of) > 1 else "")
            for span, a in zip(spans, zip(*alone, strict=True), strict=True)
        ]
        rows.append(f"| {name} | {of[0]['window']:,} | " + " | ".join(cells) + " |")
    return "\n".join(rows)
