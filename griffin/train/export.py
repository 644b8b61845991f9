"""The end of a run: a model folder that loads anywhere, and its worth on held-out documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from griffin import checkpoints
from griffin.checkpoints import copy_companions, load_model, save_model
from griffin.model import Griffin
from griffin.text import Tokenizer
from griffin.train.data.held_out import held_out_of_recipe, held_out_of_run
from griffin.train.data.prepare import RunData
from griffin.train.evaluate import bits_in_rows, bits_in_streams, compressors
from griffin.train.files import write_json
from griffin.train.loop import Trainer
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter
from griffin.train.run import TrainingRun
from griffin.train.scale.sharding import whole_weights


def export(trainer: Trainer) -> dict[str, Any] | None:
    """Write the run's model folder (bfloat16, tokenizer) and results.json; return the results.

    The writer does, to which the other ranks give their parts of the weights; they return None.
    """
    folder = write_model(trainer, trainer.model, trainer.out / "model")
    if not trainer.ranks.is_writer:
        return None
    trainer.reporter.say(f"the model is in {folder}; measuring it on all held-out documents")
    results = measure(trainer.recipe, folder, trainer.reporter, str(trainer.device), trainer.data)
    results["training"] = {
        "steps": trainer.progress.step,
        "tokens": trainer.progress.tokens,
        "seconds": round(trainer.progress.seconds, 1),
        "recipe": trainer.recipe.to_dict(),
    }
    write_json(trainer.out / "results.json", results)
    return results


def write_model(run: TrainingRun, model: Griffin, folder: Path) -> Path:
    """Write a run's model with its tokenizer to a folder, in bfloat16; return the folder.

    The writer does; all ranks must call this, and give their parts of the weights.
    """
    with torch.device("meta"):
        whole = Griffin(run.recipe.model).to(torch.bfloat16)
    if run.ranks.is_writer:
        whole.to_empty(device="cpu")
    for name, weight in whole_weights(model, run.ranks):
        if run.ranks.is_writer:
            whole.get_parameter(name).data.copy_(weight)
    if run.ranks.is_writer:
        save_model(whole, folder)
        copy_companions(run.out, folder)
    return folder


def measure(
    recipe: Recipe,
    folder: Path,
    reporter: Reporter,
    device: str = "cpu",
    data: RunData | None = None,
) -> dict[str, Any]:
    """Return the held-out bits per byte of a model folder, and of gzip and xz on the same files.

    The weights are read as stored and computed with in float32. Both ways of reading are given:
    rows, as in training, and whole documents, with the state carried through. data: of the run, if
    it is at hand; else the recipe's sources are read. Raises ValueError if the folder does not hold
    a model with its tokenizer.
    """
    source = checkpoints.open(folder)
    tokenizer = Tokenizer.open(folder)
    model = load_model(source, dtype=torch.float32, device=device)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} entries, "
            f"the model's vocabulary {model.config.vocab_size}"
        )
    held = held_out_of_run(data) if data else held_out_of_recipe(recipe, tokenizer)
    documents = held.documents
    size = sum(document.size for document in documents)
    tokens = sum(int(document.counted.sum()) for document in documents)
    read = sum(len(document.ids) - 1 for document in documents)
    length = recipe.train.length
    with reporter.measuring(2 * read) as advance:
        whole = bits_in_streams(model, documents, length, advance)
        cut = bits_in_rows(model, documents, length)
        advance(read)
    return {
        "model": str(folder),
        "parameters": sum(p.numel() for p in model.parameters()),
        "held_out": {
            "documents": len(documents),
            "bytes": size,
            "tokens": tokens,
            "lines": held.overlap.lines,
            "lines_in_training": held.overlap.shared,
        },
        "bits_per_byte": {
            "whole documents": whole / size,
            f"rows of {length}": cut / size,
            **{
                f"{name}, {how}": bits
                for name, ways in compressors(held.texts).items()
                for how, bits in ways.items()
            },
        },
    }
