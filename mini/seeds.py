"""Pre-training in short, by several seeds, beside a transformer of the same size on the same rows.

The transformer's six blocks all attend, each token to the whole row before it; its MLPs are wider,
because an attention block is smaller than a recurrent one. All else is mini/recipes/pretrain.toml.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tomllib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from benchmarks.proofs.runs import Runs
from griffin.train.plot import COLOURS, new_figure, read_log, save_figure
from griffin.tune.defaults import as_toml
from mini.chain import command

KINDS = ("griffin", "transformer")
FOLDER = "seeds"  # in that of the training
RESULTS = "results.json"
PICTURE = "results.png"
_WIDER = {256: 827, 64: 144}  # of the transformer's MLP, by width; a test holds the sizes together
_MEASURES = 10  # held-out measurements of a run


def train(
    run: Path,
    threads: int,
    say: Callable[[str], None],
    *,
    tokens: int,
    seeds: int,
) -> dict[str, Any]:
    """Train each kind with each seed, write results.json and results.png into `run`/seeds.

    run:    of `python -m mini train`: its recipe, its prepared data and its tokenizer are taken.
    tokens: of each; the two stages share them as in the recipe.
    What was done already is not done again; a run goes on from its last checkpoint.
    Raises ValueError where the folder holds runs of another budget.
    """
    recipe = tomllib.loads((run / "recipes" / "pretrain.toml").read_text("utf-8"))
    pretrained, out = run / "pretrain", run / FOLDER
    runs = Runs(out, tokens=tokens)
    for seed in range(1, seeds + 1):
        for kind in KINDS:
            folder = out / f"{kind}-{seed}"

            def make(kind: str = kind, seed: int = seed, folder: Path = folder) -> dict[str, Any]:
                say(f"{folder.name} ...")
                own = of_kind(recipe, kind, seed, tokens)
                train_short(own, pretrained, folder, threads)
                return _read(folder)

            runs.get({"kind": kind, "seed": seed}, make)
            draw(runs.found["runs"], out / PICTURE)
    return runs.found


def of_kind(recipe: Mapping[str, Any], kind: str, seed: int, tokens: int) -> dict[str, Any]:
    """Return the recipe of one run: its model, its budget, its seed."""
    values = shortened(recipe, tokens, seed)
    model = values["model"]
    if kind == "transformer":
        model["block_types"] = ["attention"] * len(model["block_types"])
        model["attention_window_size"] = values["train"]["length"] - 1
        model["mlp_width"] = _WIDER[model["width"]]
    return values


def shortened(recipe: Mapping[str, Any], tokens: int, seed: int) -> dict[str, Any]:
    """Return a recipe with another seed, its budget of tokens shared by its stages as before."""
    values = deepcopy(dict(recipe))
    stages = values["train"]["stage"]
    whole = sum(stage["tokens"] for stage in stages)
    for stage in stages:
        stage["tokens"] = stage["tokens"] * tokens // whole
    step = values["train"]["rows"] * values["train"]["length"]
    values["train"] |= {"seed": seed, "eval_every": max(1, tokens // step // _MEASURES)}
    return values


def train_short(recipe: dict[str, Any], prepared: Path | None, folder: Path, threads: int) -> None:
    """Train by a recipe in a folder; prepared: a run whose data and tokenizer are taken."""
    folder.mkdir(parents=True, exist_ok=True)
    if prepared is not None and not (folder / "data").exists():
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(prepared / name, folder / name)
        part = folder / ".data.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(prepared / "data", part)
        part.rename(folder / "data")
    file = folder.with_name(f"{folder.name}.toml")
    file.write_text(as_toml(recipe), encoding="utf-8")
    command(["train", str(file), "--out", str(folder), "--threads", str(threads)])


def _read(folder: Path) -> dict[str, Any]:
    """Return what a run came to, and its held-out bits a byte on the way there."""
    results = read_results(folder)
    key = "held_out_bits_per_byte"
    course = [{"tokens": e["tokens"], key: e[key]} for e in read_log(folder) if key in e]
    return results | {"course": course}


def read_results(folder: Path) -> dict[str, Any]:
    """Return a run's number of parameters, and held-out bits a byte of whole documents, together
    and by source."""
    results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    whole = "whole documents"
    return {
        "parameters": results["parameters"],
        "bits_per_byte": results["bits_per_byte"][whole],
        "sources": {n: of["bits_per_byte"].get(whole) for n, of in results["sources"].items()},
    }


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return held-out bits a byte by kind and source: the mean over seeds, ± its standard error."""
    columns = {kind: [run for run in runs if run["kind"] == kind] for kind in KINDS}
    lines = [f"| | {' | '.join(KINDS)} |", "|---" * (len(KINDS) + 1) + "|"]
    for source in (*runs[0]["sources"], None):
        cells = list[str]()
        for of in columns.values():
            bits = [
                run["bits_per_byte"] if source is None else run["sources"][source] for run in of
            ]
            cells.append(_mean([each for each in bits if each is not None]))
        lines.append(f"| {source or 'all'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "".join(f"{value:.3f}" for value in values)
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.3f} ± {error:.3f}"


def draw(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw held-out bits a byte against tokens, a line a run, a colour a kind."""
    figure = new_figure(7.5, 4.2)
    axis = figure.subplots()
    for run in runs:
        number = KINDS.index(run["kind"])
        axis.plot(
            [at["tokens"] for at in run["course"]],
            [at["held_out_bits_per_byte"] for at in run["course"]],
            color=COLOURS[number],
            marker="o",
            markersize=3,
            label=run["kind"] if run["seed"] == 1 else None,
        )
    axis.set_xlabel("tokens")
    axis.set_ylabel("held out, bits a byte")
    axis.grid(alpha=0.3)
    axis.legend()
    save_figure(figure, path)
