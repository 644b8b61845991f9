"""All runs of the comparison, each kept as it ends, so that a stop costs one run at most."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_model, save_model
from torch import Generator

from benchmarks.alignment.learner import new_model, stand, teach
from benchmarks.alignment.methods import EACH, HELD_OUT, Setting, best_of, learn
from benchmarks.alignment.report import draw_figure, groups, lift, table
from benchmarks.alignment.tasks import TASKS, Task
from griffin.bench import machine
from griffin.model import Griffin

STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # of REINFORCE's penalty, the paper's range
ETAS = (0.02, 0.1)  # of J-BOND: the paper's 7B, and the most that its 2B was run at
# By shape and method, so that each method's best lies between others.
RATES = {
    "small": {"jbond": (1e-3, 3e-3, 1e-2, 3e-2)}
    | dict.fromkeys(("rloo", "grpo"), (1e-3, 3e-3, 1e-2)),
    "nano": dict.fromkeys(("jbond", "rloo", "grpo"), (1e-4, 3e-4, 1e-3, 3e-3)),
}
SWEPT = 100  # the seed at which rates are chosen; no run that is shown has it
# Steps on right answers that make the base, by shape and what is asked.
TAUGHT = {"small": {"sort": 55, "add": 300}, "nano": {"sort": 13, "add": 60}}
_MOST_BINARY = 0.15  # share of the base's answers that a reward of 0 or 1 may pay


def compare(
    out: Path,
    tasks: Sequence[str],
    seeds: int,
    steps: int,
    say: Callable[[str], object],
    shape: str = "small",
) -> dict[str, Any]:
    """Do what of the comparison is not done in a folder, and write results.json and results.png.

    shape: of the model, one of SHAPES. The rate of each method is the one of RATES that ends
    highest at a seed of its own; it is found for the first of the tasks of a kind. Raises
    RuntimeError if the base is paid too often by a binary reward, or if REINFORCE does not raise
    the reward by three standard errors.
    """
    (out / "runs").mkdir(parents=True, exist_ok=True)
    found, swept = list[dict[str, Any]](), list[dict[str, Any]]()
    results = dict[str, Any]()
    best, bases, rates = dict[str, Any](), dict[str, Any](), dict[str, dict[str, float]]()
    for name in tasks:
        task = TASKS[name]
        base = _base(out, task, shape)
        bases[name] = _first(base, task)
        say(f"{name}: the base has {bases[name]['reward']:.3f}")
        if "exact" in name and bases[name]["reward"] > _MOST_BINARY:
            raise RuntimeError(f"{name}: the base is paid for {bases[name]['reward']:.0%}")
        file = f"{name.replace(', ', '-')}-best"
        best[name] = _kept(out, file, partial(best_of, task, base, 0))
        if task.kind not in rates:
            tried = [_run(out, setting, task, base, say) for setting in _swept(name, steps, shape)]
            rates[task.kind] = _best_rates(tried)
            swept += tried
        for setting in _shown(name, rates[task.kind], seeds, steps):
            found.append(_run(out, setting, task, base, say))
        results = {
            "command": machine.command(),
            "commit": machine.commit(),
            "machine": machine.describe(),
            "shape": shape,
            "held_out": HELD_OUT,
            "each": EACH,
            "bases": bases,
            "rates": rates,
            "swept": swept,
            "best_of": best,
            "runs": found,
        }
        (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        say(table(found, best, name))
        draw_figure(found, best, out / "results.png")
    for name in tasks:
        risen = {key: lift(group) for key, group in groups(found, name).items()}
        say(f"{name}: " + ", ".join(f"{key} {value:+.1f}" for key, value in risen.items()))
        if max(value for key, value in risen.items() if key.startswith("REINFORCE")) < 3:
            raise RuntimeError(
                f"{name}: REINFORCE did not raise the reward by three standard errors: the harness"
                " is wrong, or the task too hard for this model"
            )
    return results


def _swept(task: str, steps: int, shape: str) -> Iterator[Setting]:
    """Yield what is tried to find the rates."""
    for method, others in (("jbond", {"eta": max(ETAS)}), ("rloo", {"kl": 0.01}), ("grpo", {})):
        common = {"task": task, "method": method, "seed": SWEPT, "steps": steps, **others}
        for rate in RATES[shape][method]:
            yield Setting(rate=rate, **common)


def _best_rates(tried: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the rate of each method that ended highest."""
    best = dict[str, float]()
    for run in sorted(tried, key=lambda run: run["points"][-1]["reward"]):
        best[run["method"]] = run["rate"]
    return best


def _shown(task: str, rates: dict[str, float], seeds: int, steps: int) -> Iterator[Setting]:
    for seed in range(seeds):
        common = {"task": task, "seed": seed, "steps": steps}
        for eta in ETAS:
            yield Setting(method="jbond", rate=rates["jbond"], eta=eta, **common)
        for kl in STRENGTHS:
            yield Setting(method="rloo", rate=rates["rloo"], kl=kl, **common)
        yield Setting(method="grpo", rate=rates["grpo"], **common)


def _base(out: Path, task: Task, shape: str) -> Griffin:
    """Return the base of a task's kind, taught or as it was kept."""
    base, path = new_model(0, shape), out / "runs" / f"{task.kind}.safetensors"
    if path.exists():
        load_model(base, path)
        return base
    teach(base, task, TAUGHT[shape][task.kind])
    beside = path.with_suffix(".part")
    save_model(base, str(beside))
    beside.replace(path)
    return base


def _first(base: Griffin, task: Task) -> dict[str, Any]:
    """Measure the base."""
    items = task.items("held out", HELD_OUT)
    found = stand(base, base, task, items, 8, Generator().manual_seed(7))
    return dataclasses.asdict(found)


def _run(
    out: Path, setting: Setting, task: Task, base: Griffin, say: Callable[[str], object]
) -> dict[str, Any]:
    run = _kept(out, setting.name, partial(learn, setting, task, base))
    end = run["points"][-1]
    say(
        f"{setting.name}: {run['points'][0]['reward']:.3f} to {end['reward']:.3f}"
        f" ± {end['error']:.3f} at {end['divergence']:.2f} nats; {run['seconds']:.0f} s"
    )
    return run


def _kept(out: Path, name: str, work: Callable[[], Any]) -> Any:
    """Return what a file says, or do the work and write it there."""
    path = out / "runs" / f"{name}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    done = work()
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(done) + "\n", encoding="utf-8")
    beside.replace(path)
    return done
