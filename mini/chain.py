"""From a corpus to the model in the box: every step once, one after the other, none twice."""

from __future__ import annotations

import json
import os
import shutil
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from griffin.cli import main as command_line
from griffin.loading import load
from griffin.ops import native
from griffin.train.export import measure
from griffin.train.recipe import load_recipe
from griffin.train.report import Reporter
from griffin.tune.defaults import as_toml
from mini.chats import write_chats
from mini.exam import GRADES, examine, tell
from mini.speeds import write_speeds
from mini.style import write_style

NAME = "mini-it"
RECIPES = ("pretrain", "sft", "jbond", "rloo", "style")
# Those of them whose products are in bfloat16 where the processor multiplies that itself: half of
# the time. Elsewhere that would be many times slower.
NARROW = ("pretrain", "sft")
EXAMINED = ("pretrain", "sft", "jbond", NAME)  # in this order
# The folder of a run that has the model in each format.
FORMATS = {"bfloat16": "jbond/best", "int8": NAME, "int4": "int4"}
MOST_BYTES = 16_000_000  # of the weights that ship
COSTS = "costs.json"
_HERE = Path(__file__).parent
# A rehearsal's model and budget: whether each step runs, and nothing about what comes of it.
_TINY = {"width": 64, "mlp_width": 128, "lru_width": 64, "num_heads": 2, "num_gate_blocks": 2}
_TINY |= {"vocab_size": 512, "attention_window_size": 32}
_TINY |= {"block_types": ["recurrent", "recurrent", "attention"]}
_ROWS, _LENGTH, _STEPS = 2, 128, 10


@dataclass(frozen=True)
class Step:
    """One step. makes: the file that is there when it was done; do: writes it last."""

    name: str
    makes: Path
    do: Callable[[], object]


def train(
    corpus: Path, out: Path, threads: int, say: Callable[[str], None], *, rehearsal: bool = False
) -> None:
    """Do all steps of which the result is not in `out` yet.

    corpus:    what `python -m mini sources` wrote. threads: of the processor.
    rehearsal: with a model of 0.1 million weights and ten steps of each training, to see that
               nothing fails.
    Stopped or killed, the same call goes on: trainings from their last checkpoint, an examination
    from its beginning. What each step took is added up in costs.json.
    Raises ValueError where `out` was begun by other recipes.
    """
    corpus, out = corpus.resolve(), out.resolve()
    write_recipes(corpus, out, rehearsal=rehearsal)
    torch.set_num_threads(threads)
    for step in steps(corpus, out, threads, **({"most": 2, "talks": 2} if rehearsal else {})):
        if step.makes.exists():
            say(f"{step.name}: done before")
            continue
        say(f"{step.name} ...")
        with _Clock(out / COSTS, step.name, threads):
            step.do()


def write_recipes(corpus: Path, out: Path, *, rehearsal: bool) -> None:
    """Write the recipes into out/recipes, with folders in the place of CORPUS, OUT and MINI."""
    folder = out / "recipes"
    folder.mkdir(parents=True, exist_ok=True)
    for name in RECIPES:
        text = (_HERE / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
        for word, place in (("CORPUS", corpus), ("OUT", out), ("MINI", _HERE)):
            text = text.replace(f'"{word}/', f'"{place.as_posix()}/')
        values = tomllib.loads(text)
        if name in NARROW and native.multiplies_bfloat16():
            values["train"]["dtype"] = "bfloat16"
        if rehearsal:
            _make_small(values)
        file, text = folder / f"{name}.toml", as_toml(values)
        if file.exists() and file.read_text(encoding="utf-8") != text:
            raise ValueError(f"{out} was begun by another recipe, {file}; name another --out")
        file.write_text(text, encoding="utf-8")


def _make_small(values: dict[str, Any]) -> None:
    if "model" in values:
        values["model"] |= _TINY
    train = values["train"]
    for budget in (train, *train.get("stage", ())):
        if "tokens" in budget:
            budget["tokens"] = _STEPS * _ROWS * _LENGTH
        if "steps" in budget:
            budget["steps"] = 2
    train |= {"rows": _ROWS, "length": _LENGTH, "warmup_steps": 2, "eval_tokens": 500}
    values["data"]["held_out"] = 0.1
    values.get("tune", {}).update({"prompts": 4, "answer_tokens": 8})


def steps(corpus: Path, out: Path, threads: int, *, most: int = 500, talks: int = 20) -> list[Step]:
    """Return the steps in their order. most: questions of each examination; talks: chats."""
    recipes, model = out / "recipes", out / NAME
    aligned = out / "jbond" / "best"

    def run(*words: object) -> Callable[[], None]:
        return partial(command, [str(word) for word in words])

    def recipe(verb: str, name: str) -> Step:
        words = (verb, recipes / f"{name}.toml", "--out", out / name, "--threads", threads)
        return Step(name, out / name / "results.json", run(*words))

    def exam(name: str, folder: Path) -> Step:
        grades = out / "exams" / name
        do = partial(_examine, folder, corpus / "exams", grades, most)
        return Step(f"exam {name}", grades / GRADES, do)

    def held_out(name: str, model: str | Path) -> Step:
        file = out / f"held-out-{name}.json"
        return Step(file.stem, file, partial(_measure, recipes / "pretrain.toml", model, file))

    packed = out / "int8"
    int4, speeds = out / "int4", out / "speeds.json"
    models = {form: out / folder for form, folder in FORMATS.items()}

    def quantize(to: Path, form: str) -> Callable[[], None]:
        return run("quantize", aligned, to, "--format", form, "--threads", threads)

    state, pirate = out / "style" / "tuned.state", out / "pirate.jsonl"

    def chats(name: str, state: Path | None) -> Step:
        file = out / f"{name}.json"
        return Step(name, file, partial(_chat, model, state, file, talks))

    return [
        recipe("train", "pretrain"),
        exam("pretrain", out / "pretrain" / "model"),
        recipe("finetune", "sft"),
        exam("sft", out / "sft" / "model"),
        recipe("finetune", "jbond"),
        # Of its checkpoints the one with the highest held-out reward.
        Step("export", aligned / "config.json", run("export", out / "jbond", aligned, "--best")),
        exam("jbond", aligned),
        Step("quantize", packed / "config.json", quantize(packed, "int8")),
        Step("gather", model / "config.json", partial(_gather, packed, corpus, model)),
        exam(NAME, model),
        Step("style's data", pirate, partial(write_style, corpus / "questions", pirate)),
        recipe("finetune", "style"),
        Step("state", model / "pirate.state", partial(_copy, state, model / "pirate.state")),
        chats("chats", None),
        chats("chats-pirate", model / "pirate.state"),
        held_out(NAME, model),
        held_out("nano", "nano"),
        Step("int4", int4 / "config.json", quantize(int4, "int4")),
        exam("int4", int4),
        held_out("int4", int4),
        held_out("jbond", aligned),
        Step("speeds", speeds, partial(write_speeds, models, speeds, talks)),
        recipe("finetune", "rloo"),
    ]


def command(words: list[str]) -> None:
    """Run a command of griffin in this process; SystemExit if it fails or is stopped."""
    click.echo(f"$ griffin {' '.join(words)}", err=True)
    if code := command_line(words, standalone_mode=False):
        raise SystemExit(code)


def _examine(model: Path, exams: Path, out: Path, most: int) -> None:
    examine(load(model), exams, out, lambda grade: click.echo(tell(grade)), most=most)


def _measure(recipe: Path, model: str | Path, out: Path) -> None:
    from griffin.checkpoints.model_names import resolve

    found = measure(load_recipe(recipe), Path(resolve(model)), Reporter())
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _gather(packed: Path, corpus: Path, model: Path) -> None:
    """Put what ships into one folder: weights, tokenizer, how it answers, licences."""
    size = (packed / "model.safetensors").stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{packed} has {size:,} bytes of weights; {MOST_BYTES:,} may ship")
    part = model.with_name(f".{model.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(packed, part)
    shutil.copytree(corpus / "licences", part / "licences")
    # What it knows it knows by its likeliest words.
    answers = {"do_sample": False, "max_new_tokens": 256, "eos_token_id": 1}
    (part / "generation_config.json").write_text(json.dumps(answers, indent=1) + "\n")
    part.rename(model)


def _copy(source: Path, target: Path) -> None:
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, part)
    part.rename(target)


def _chat(model: Path, state: Path | None, out: Path, most: int) -> None:
    write_chats(load(model, state=state), out, most)


class _Clock:
    """A `with` block whose seconds are added to a step's in a file, however it ends."""

    def __init__(self, file: Path, step: str, threads: int) -> None:
        self._file, self._step, self._threads = file, step, threads

    def __enter__(self) -> None:
        self._began = time.monotonic(), _processor()

    def __exit__(self, *_: object) -> None:
        kept = json.loads(self._file.read_text()) if self._file.exists() else {}
        of_step = kept.setdefault(self._step, {"seconds": 0.0, "core_seconds": 0.0, "attempts": 0})
        of_step["seconds"] += time.monotonic() - self._began[0]
        of_step["core_seconds"] += _processor() - self._began[1]
        of_step["attempts"] += 1
        of_step["threads"] = self._threads
        part = self._file.with_name(f".{self._file.name}.part")
        part.write_text(json.dumps(kept, indent=1) + "\n")
        part.rename(self._file)


def _processor() -> float:
    """Return the seconds of the processor that this process and its children have had."""
    return sum(os.times()[:4])
