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
RESULTS = "results.json"
PICTURE = "results.png"
_WIDER = {256: 827, 64: 144}  # of the transformer's MLP, by width; a test holds the sizes together
_MEASURES = 10  # held-out measurements of a run


def train(
    pretrained: Path,
    out: Path,
    threads: int,
    say: Callable[[str], None],
    *,
    tokens: int,
    seeds: int,
) -> dict[str, Any]:
    """Train each kind with each seed, write results.json and results.png into `out`.

    pretrained: a pre-training's folder (its data and its tokenizer are taken); recipes are beside.
    tokens:     of each run; the two stages share them as in the recipe.
    What was done already is not done again; a run goes on from its last checkpoint.
    Raises ValueError where `out` holds runs of another budget.
    """
    recipe = tomllib.loads((pretrained.parent / "recipes" / "pretrain.toml").read_text("utf-8"))
    runs = Runs(out, tokens=tokens)
    for seed in range(1, seeds + 1):
        for kind in KINDS:
            folder = out / f"{kind}-{seed}"

            def make(kind: str = kind, seed: int = seed, folder: Path = folder) -> dict[str, Any]:
                say(f"{folder.name} ...")
                _train(of_kind(recipe, kind, seed, tokens), pretrained, folder, threads)
                return _read(folder)

            runs.get({"kind": kind, "seed": seed}, make)
            draw(runs.found["runs"], out / PICTURE)
    return runs.found


def of_kind(recipe: Mapping[str, Any], kind: str, seed: int, tokens: int) -> dict[str, Any]:
    """Return the recipe of one run: its model, its budget, its seed."""
    values = deepcopy(dict(recipe))
    model, stages = values["model"], values["train"]["stage"]
    if kind == "transformer":
        model["block_types"] = ["attention"] * len(model["block_types"])
        model["attention_window_size"] = values["train"]["length"] - 1
        model["mlp_width"] = _WIDER[model["width"]]
    whole = sum(stage["tokens"] for stage in stages)
    for stage in stages:
        stage["tokens"] = stage["tokens"] * tokens // whole
    step = values["train"]["rows"] * values["train"]["length"]
    values["train"] |= {"seed": seed, "eval_every": max(1, tokens // step // _MEASURES)}
    return values


def _train(recipe: dict[str, Any], pretrained: Path, folder: Path, threads: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "data").exists():
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(pretrained / name, folder / name)
        part = folder / ".data.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(pretrained / "data", part)
        part.rename(folder / "data")
    file = folder.with_name(f"{folder.name}.toml")
    file.write_text(as_toml(recipe), encoding="utf-8")
    command(["train", str(file), "--out", str(folder), "--threads", str(threads)])


def _read(folder: Path) -> dict[str, Any]:
    """Return what a run came to, and its held-out bits a byte on the way there."""
    results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    key = "held_out_bits_per_byte"
    course = [{"tokens": e["tokens"], key: e[key]} for e in read_log(folder) if key in e]
    sources = results["sources"].items()
    return {
        "parameters": results["parameters"],
        "bits_per_byte": results["bits_per_byte"]["whole documents"],
        "sources": {name: of["bits_per_byte"].get("whole documents") for name, of in sources},
        "course": course,
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
