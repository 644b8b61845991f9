"""Bits: what a byte costs with rounded weights, of a Griffin and of a transformer of its size.

Every way of rounding reads the same files, those that the recipe holds out, from end to end with
the state carried through, activations in float32 as far as the products take them. Calibration
(GPTQ) reads documents of training.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from benchmarks.proofs.drawing import draw_rises
from benchmarks.proofs.held_out import (
    bits_of,
    digest_of,
    held_out_ids,
    open_model,
    read_recipe,
    read_texts,
    spans_of,
)
from benchmarks.proofs.runs import Runs
from griffin.evaluate.positions import PositionSpan, doublings
from griffin.loading import load_tokenizer
from griffin.model import Griffin
from griffin.quant import calibrate, quantize_model
from griffin.text import Tokenizer
from griffin.train.data.encode import Encoder
from griffin.train.data.source import open_sources
from griffin.train.data.survey import survey
from griffin.train.recipe import Recipe

SAMPLE = 32_768  # tokens that calibration reads
_ROW = 1024  # of which are in a row, BOS included


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """A way to round a model's matrices: to a format, the head perhaps to another."""

    format: str
    head: str | None = None
    calibrated: bool = False

    def __str__(self) -> str:
        head = f", head {self.head}" if self.head else ""
        return f"{self.format}{head}{', calibrated' if self.calibrated else ''}"


AS_STORED = "as stored"
ROUNDINGS = tuple(
    Rounding(format=format, head=head, calibrated=calibrated)
    for calibrated in (False, True)
    for format, head in (("int8", None), ("int4", None), ("int4", "int8"))
)


def compare(
    out: Path,
    griffin: str,
    transformer: str | None,
    say: Callable[[str], object],
    *,
    recipe: str = "nano",
    sample: int = SAMPLE,
    roundings: Sequence[Rounding] = ROUNDINGS,
) -> dict[str, Any]:
    """Run what `out`/results.json does not hold yet, and return all of it.

    griffin, transformer: folders of models, or names of bundled ones; without the latter the former
                          reads alone.
    recipe:               whose held-out files are read.
    sample:               tokens of its training documents that calibration reads, 1,023 at least.
    """
    models = {"Griffin": griffin}
    if transformer is not None:
        models["transformer"] = transformer
    digests = {"griffin": digest_of(griffin), "transformer": digest_of(transformer)}
    runs = Runs(out, recipe=recipe, sample=sample, **digests)
    plan, texts = read_recipe(recipe), dict[str, list[list[int]]]()

    def read(name: str, rounding: Rounding | None) -> dict[str, Any]:
        tokenizer, model = load_tokenizer(models[name]), open_model(models[name])
        if name not in texts:
            texts[name] = held_out_ids(plan, tokenizer)
        if rounding is not None:
            rounded(model, rounding, lambda: training_rows(plan, tokenizer, sample))
        told = f"{name}, {rounding or AS_STORED}"
        edges = doublings(max(map(len, texts[name])))
        spans = read_texts(
            model, tokenizer, texts[name], edges, lambda line: say(f"{told}: {line}")
        )
        tensors = (*model.parameters(), *model.buffers())
        return {"bytes": sum(each.nbytes for each in tensors), "spans": spans}

    for name in models:
        for rounding in (None, *roundings):
            key = {"model": name, "weights": str(rounding or AS_STORED)}
            runs.get(key, partial(read, name, rounding))
    draw_rises(_rises(runs.found), out / "rises.png")
    return runs.found


def _rises(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return of each model by how much of them each rounding raises its bits per byte."""
    plain, rises = _plain(found), dict[str, dict[str, float]]()
    for run in found["runs"]:
        of = rises.setdefault(run["model"], {})
        if run["weights"] != AS_STORED:
            of[run["weights"]] = _rise(spans_of([run]), plain[run["model"]])
    return rises


def _plain(found: Mapping[str, Any]) -> dict[str, list[PositionSpan]]:
    """Return what each model reads as it is stored."""
    return {r["model"]: spans_of([r]) for r in found["runs"] if r["weights"] == AS_STORED}


def _rise(spans: Sequence[PositionSpan], before: Sequence[PositionSpan]) -> float:
    """Return by how much of them bits per byte rise; 0 where nothing was read."""
    return bits_of(spans) / bits_of(before) - 1 if spans else 0.0


def rounded(model: Griffin, rounding: Rounding, sample: Callable[[], Tensor]) -> Griffin:
    """Round a model's matrices in place, and return it. sample: gives (R, T) ids to calibrate
    with."""
    if rounding.calibrated:
        return calibrate(model, sample(), rounding.format, head=rounding.head)
    return quantize_model(model, rounding.format, head=rounding.head)


def training_rows(recipe: Recipe, tokenizer: Tokenizer, tokens: int) -> Tensor:
    """Return (R, 1024) ids of a recipe's training documents, drawn, each row with BOS before it.

    Raises ValueError where they do not fill one.
    """
    sources, data = open_sources(recipe.data, recipe.folder), recipe.data
    with tempfile.TemporaryDirectory() as folder:
        seen = survey(sources, data.held_out, data.max_document_bytes, Path(folder), skip_bad=True)
        documents = [document.example for _, document in seen.documents(sources, held=False)]
    ids, encoder = list[int](), Encoder(tokenizer)
    for example in Random(0).sample(documents, len(documents)):
        ids += encoder.encode(example).ids[1:].tolist()
        if len(ids) >= tokens:
            break
    count = min(tokens, len(ids)) // (_ROW - 1)
    if not count:
        raise ValueError(f"calibration takes {_ROW - 1} tokens at least, not {len(ids)}")
    body = torch.tensor(ids[: count * (_ROW - 1)]).view(count, _ROW - 1)
    return torch.cat([torch.full((count, 1), tokenizer.bos_id), body], dim=1)


def table(found: dict[str, Any]) -> str:
    """Return bits per byte of whole files as Markdown, and how much rounding adds, by position.

    A field is empty where nothing was read, or nothing is added.
    """
    lines = [
        "| weights | model | bytes | bits per byte | rise | before 1,024 | from there on |",
        "|---|---|---|---|---|---|---|",
    ]
    plain = _plain(found)
    order = [*dict.fromkeys(run["weights"] for run in found["runs"])]
    for run in sorted(found["runs"], key=lambda run: order.index(run["weights"])):
        spans, before = spans_of([run]), plain[run["model"]]
        near = sum(span.end <= _ROW for span in spans)
        parts = slice(None), slice(near), slice(near, None)
        rises = [f"{rise:.2%}" if (rise := _rise(spans[p], before[p])) else "" for p in parts]
        size, bits = f"{run['bytes']:,}", f"{bits_of(spans):.4f}"
        lines.append(f"| {' | '.join([run['weights'], run['model'], size, bits, *rises])} |")
    return "\n".join(lines)
