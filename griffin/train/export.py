"""The end of a run: a model folder that loads anywhere, and its worth on held-out documents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from griffin import checkpoints
from griffin.checkpoints import copy_companions, load_model, save_model
from griffin.checkpoints.staging import staged_folder
from griffin.model import Griffin
from griffin.text import Tokenizer
from griffin.train.data.encode import Encoded
from griffin.train.data.held_out import held_out_of_recipe, held_out_of_run
from griffin.train.data.prepare import RunData
from griffin.train.evaluate import bits_in_rows, bits_in_streams, compressors
from griffin.train.files import write_json, writing
from griffin.train.loop import Trainer
from griffin.train.recipe import Recipe, TrainRecipe
from griffin.train.report import Reporter
from griffin.train.run import TrainingRun
from griffin.train.scale.sharding import whole_weights

_COUNTS = ("documents", "bytes", "tokens")


def export(trainer: Trainer) -> dict[str, Any] | None:
    """Write the run's model folder (bfloat16, tokenizer) and results.json; return the results.

    The writer does, to which the other ranks give their parts of the weights; they return None. The
    moments are given up for the measuring: the run has ended. Raises `Interrupted` between batches
    of it, where a stop is heard (`TrainingRun.stoppable`).
    """
    folder = write_model(trainer, trainer.model, trainer.out / "model")
    if not trainer.ranks.is_writer:
        return None
    trainer.reporter.say(f"the model is in {folder}; measuring it on all held-out documents")
    trainer.optimizer.state.clear()
    results = measure(
        trainer.recipe,
        folder,
        trainer.reporter,
        str(trainer.device),
        trainer.data,
        check=trainer.stop.check,
    )
    results["training"] = trainer.account()
    write_json(trainer.out / "results.json", results)
    return results


def write_model(run: TrainingRun, model: Griffin, folder: Path) -> Path:
    """Write a run's model with its tokenizer to a folder, in bfloat16; return the folder.

    The writer does; all ranks must call this, and give their parts of the weights. Raises OSError,
    and leaves what was there, if the disk is full.
    """
    with torch.device("meta"):
        whole = Griffin(run.recipe.model).to(torch.bfloat16)
    if run.ranks.is_writer:
        whole.to_empty(device="cpu")
    for name, weight in whole_weights(model, run.ranks):
        if run.ranks.is_writer:
            whole.get_parameter(name).data.copy_(weight)
    if run.ranks.is_writer:
        with writing(folder), staged_folder(folder) as staged:
            save_model(whole, staged)
            copy_companions(run.out, staged)
    return folder


def measure(
    recipe: Recipe,
    folder: Path,
    reporter: Reporter,
    device: str = "cpu",
    data: RunData | None = None,
    check: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Return the held-out bits per byte of a model folder, and of gzip and xz on the same files.

    The weights are read as stored and computed with in float32. Both ways of reading are given:
    rows, as in training, and whole documents, with the state carried through; of several sources
    together and, in "sources", of each. data: of the run, if it is at hand; else the recipe's
    sources are read. check: called before each batch; what it raises ends the measuring. Raises
    ValueError if the folder does not hold a model with its tokenizer.
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
    read = sum(len(each.ids) - 1 for documents in held.documents.values() for each in documents)
    sources = dict[str, dict[str, Any]]()
    with reporter.measuring(2 * read) as advance:

        def done(tokens: int) -> None:
            check()
            advance(tokens)

        for name, documents in held.documents.items():
            sources[name] = _of_source(model, documents, recipe.train, done)
    for name, texts in held.texts.items():
        check()
        sources[name]["bits_per_byte"] |= _compressed(texts)
    size = sum(of_source["bytes"] for of_source in sources.values())
    if not size:
        raise ValueError(f"the tokenizer of {folder} can encode none of the held-out documents")
    whole = {
        key: sum(s["bits_per_byte"].get(key, 0.0) * s["bytes"] for s in sources.values()) / size
        for key in ("whole documents", f"rows of {recipe.train.length}")
    }
    texts = [text for of_source in held.texts.values() for text in of_source]
    check()
    results = {
        "model": str(folder),
        "parameters": sum(p.numel() for p in model.parameters()),
        "held_out": {
            **{key: sum(s[key] for s in sources.values()) for key in _COUNTS},
            "lines": held.overlap.lines,
            "lines_in_training": held.overlap.shared,
        },
        "bits_per_byte": whole | _compressed(texts),
    }
    return results | ({"sources": sources} if len(sources) > 1 else {})


def _of_source(
    model: Griffin, documents: list[Encoded], train: TrainRecipe, advance: Callable[[int], None]
) -> dict[str, Any]:
    """Return counts of documents, and their bits per byte if there are any."""
    length = train.length
    size = sum(document.size for document in documents)
    tokens = sum(int(document.counted.sum()) for document in documents)
    counts = dict(zip(_COUNTS, (len(documents), size, tokens), strict=True))
    if not documents:
        return {**counts, "bits_per_byte": {}}
    whole = bits_in_streams(model, documents, length, advance)
    cut = bits_in_rows(model, documents, length, train.rows, check=lambda: advance(0))
    advance(sum(len(document.ids) - 1 for document in documents))
    bits = {"whole documents": whole / size, f"rows of {length}": cut / size}
    return {**counts, "bits_per_byte": bits}


def _compressed(texts: list[bytes]) -> dict[str, float]:
    if not texts:
        return {}
    return {
        f"{name}, {how}": bits
        for name, ways in compressors(texts).items()
        for how, bits in ways.items()
    }
