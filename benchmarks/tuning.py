"""State, adapters of three ranks and all weights on one task: what each learns, and its size.

The task is made by program, so that its answers can be checked: sums of two numbers below twenty,
asked in Gemma's turns, of which a fifth are held out. Every method takes the same steps on the same
rows; its learning rate is the best of a few by the held-out loss of the first seed, and the other
seeds run with that. The model is the bundled one, which has read nothing but Python.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from griffin.bench import machine
from griffin.train.recipe import recipe_of
from griffin.train.report import Reporter
from griffin.tune.answers import answers, held_out_prompts
from griffin.tune.defaults import default_recipe
from griffin.tune.export import tuned_state, write_learned
from griffin.tune.methods import run_of

WAYS: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "state, 16 keys": ({"method": "state", "keys": 16}, (3e-2, 1e-1, 3e-1)),
    "LoRA, rank 2": ({"method": "lora", "rank": 2}, (3e-3, 1e-2, 3e-2)),
    "LoRA, rank 8": ({"method": "lora", "rank": 8}, (1e-3, 3e-3, 1e-2)),
    "LoRA, rank 32": ({"method": "lora", "rank": 32}, (1e-3, 3e-3, 1e-2)),
    "all weights": ({"method": "full"}, (3e-4, 1e-3, 3e-3)),
}
SEEDS = (0, 1, 2)
_STEPS, _ROWS, _LENGTH = 150, 4, 64


def compare(
    out: Path, say: Callable[[str], object], steps: int = _STEPS, model: str = "nano"
) -> dict[str, Any]:
    """Run what `out`/results.json does not hold yet; return all of it. Kept after every run."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "results.json"
    found: dict[str, Any] = {
        "command": machine.command(),
        "commit": machine.commit(),
        "machine": machine.describe(),
        "runs": [],
    }
    if path.exists():
        found |= json.loads(path.read_text())
    runs: list[dict[str, Any]] = found["runs"]

    def run(way: str, rate: float, seed: int) -> dict[str, Any]:
        for one in runs:
            if (one["way"], one["rate"], one["seed"]) == (way, rate, seed):
                return one
        runs.append(_run(way, rate, seed, steps, model))
        path.write_text(json.dumps(found, indent=1) + "\n")
        last = runs[-1]
        say(
            f"{way}, rate {rate:g}, seed {seed}: {last['bits']:.4f} bits, {last['exact']:.1%} right"
        )
        return last

    for way, (_, rates) in WAYS.items():
        best = min(rates, key=lambda rate: run(way, rate, SEEDS[0])["bits"])
        for seed in SEEDS[1:]:
            run(way, best, seed)
    return found


def table(found: dict[str, Any]) -> str:
    """Return the methods beside each other as Markdown: at the best rate, means over the seeds."""
    lines = [
        "| | rate | numbers trained | bytes | held-out bits per byte | right answers |",
        "|---|---|---|---|---|---|",
    ]
    for way in WAYS:
        runs = [one for one in found["runs"] if one["way"] == way]
        rate = min((one for one in runs if one["seed"] == SEEDS[0]), key=lambda o: o["bits"])[
            "rate"
        ]
        same = [one for one in runs if one["rate"] == rate]
        bits, right = ([one[key] for one in same] for key in ("bits", "exact"))
        lines.append(
            f"| {way} | {rate:g} | {same[0]['trained']:,} | {same[0]['bytes']:,} |"
            f" {_spread(bits, '.3f')} | {_spread([100 * r for r in right], '.0f')} % |"
        )
    return "\n".join(lines)


def _spread(values: list[float], form: str) -> str:
    apart = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{form}} ± {apart:{form}}"


def _run(way: str, rate: float, seed: int, steps: int, model: str) -> dict[str, Any]:
    tune, _ = WAYS[way]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "sums.jsonl"
        data.write_text("".join(json.dumps({"messages": _sum(a, b)}) + "\n" for a, b in _PAIRS))
        values = default_recipe(model, tune["method"], [data])
        values["tune"] |= tune
        values["train"] = {
            "steps": steps,
            "rows": _ROWS,
            "length": _LENGTH,
            "learning_rate": rate,
            "warmup_steps": 10,
            "weight_decay": 0.0,
            "beta2": 0.99,
            "eval_every": steps,
            "eval_tokens": 1_000_000,
            "keep_best": False,
            "checkpoint_minutes": 1e9,
            "seed": seed,
        }
        values["data"]["held_out"] = 0.2
        recipe = recipe_of(values)
        with run_of(recipe)(recipe, Path(folder) / "run", Reporter(quiet=True)) as ours:
            ours.run()
            bits = float(ours.validate().entries["held_out_bits_per_byte"])
            prompts = held_out_prompts(ours.data, 1000)
            told = answers(ours.model, ours.data, prompts, 16, tuned_state(ours))
            right = [_right(each["prompt"], each["answer"]) for each in told]
            place = write_learned(ours)
            trained = [each for each in ours.learner.parameters() if each.requires_grad]
            files = [place] if place.is_file() else list(place.glob("*.safetensors"))
            return {
                "way": way,
                "rate": rate,
                "seed": seed,
                "bits": bits,
                "exact": sum(right) / len(right),
                "asked": len(right),
                "trained": sum(each.numel() for each in trained),
                "bytes": sum(file.stat().st_size for file in files),
                "seconds": round(ours.progress.seconds, 1),
            }


_PAIRS = [(a, b) for a in range(1, 20) for b in range(1, 20)]


def _sum(a: int, b: int) -> list[dict[str, str]]:
    asked, said = f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}."
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]


def _right(prompt: str, answer: str) -> bool:
    words = prompt.replace("?", " ").split()
    at = words.index("plus")
    return answer.strip() == _sum(int(words[at - 1]), int(words[at + 1]))[1]["content"]
