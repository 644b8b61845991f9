"""What the runs say: a table, a picture, and whether the harness can be believed."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from griffin.train.plot import COLOURS, new_figure, save_figure

Run = dict[str, Any]
_NAMES = {"jbond": "J-BOND", "grpo": "GRPO", "rloo": "REINFORCE"}


def name_of(run: Run) -> str:
    """Return what a run's method is called, with what it was run at."""
    strength = {"rloo": f", KL {run['kl']:g}", "jbond": f", eta {run['eta']:g}"}
    return _NAMES[run["method"]] + strength.get(run["method"], "")


def groups(runs: Sequence[Run], task: str) -> dict[str, list[Run]]:
    """Return a task's runs by method; of one method they differ by seed."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if run["task"] == task:
            found.setdefault(name_of(run), []).append(run)
    return found


def lift(runs: Sequence[Run]) -> float:
    """Return by how many standard errors runs of one method raised the held-out reward: of each
    seed the end less the start, mean over its standard error; the errors of prompts count as if
    the seeds' prompts were one sample."""
    risen = statistics.fmean(r["points"][-1]["reward"] - r["points"][0]["reward"] for r in runs)
    squares = [r["points"][at]["error"] ** 2 for r in runs for at in (0, -1)]
    # The held-out prompts are the same for each seed: their errors do not average out.
    return risen / (sum(squares) / len(runs)) ** 0.5


def best_at(best: Sequence[dict[str, float]], divergence: float) -> float | None:
    """Return the reward of best-of-N at a divergence, on a line between two N; None beyond them."""
    for one, other in itertools.pairwise(best):
        if one["divergence"] <= divergence <= other["divergence"]:
            part = (divergence - one["divergence"]) / (other["divergence"] - one["divergence"])
            return one["reward"] + part * (other["reward"] - one["reward"])
    return None


def table(runs: Sequence[Run], best: dict[str, list[dict[str, float]]], task: str) -> str:
    """Return a task's results in Markdown: means over seeds, and their standard errors."""
    lines = [
        "| method | rate | reward at the end | divergence, nats | best-of-N there | ties |",
        "|---|---|---|---|---|---|",
    ]
    for name, group in groups(runs, task).items():
        rewards, apart = ([run["points"][-1][key] for run in group] for key in _MEASURED)
        beside = best_at(best[task], statistics.fmean(apart))
        ties = statistics.fmean(run["ties"] for run in group)
        lines.append(
            f"| {name} | {group[0]['rate']:g} | {_mean(rewards, 3)} | {_mean(apart, 2)} |"
            f" {'beyond' if beside is None else f'{beside:.3f}'} | {ties:.0%} |"
        )
    lines += [
        f"| best of {each['n']:g} | | {each['reward']:.3f} | {each['divergence']:.2f} | |"
        f" {each['ties']:.0%} |"
        for each in best[task]
        if each["n"] in (1, 4, 16, 64)
    ]
    return "\n".join(lines)


_MEASURED = ("reward", "divergence")


def _mean(values: Sequence[float], digits: int) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}f} ± {error:.{digits}f}"


def draw_figure(runs: Sequence[Run], best: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draw reward over divergence, a panel a task: each method's mean, and its seeds thinly."""
    tasks = [task for task in best if groups(runs, task)]
    figure = new_figure(1 + 4.2 * len(tasks), 4.8)
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for axis, task in zip(panels, tasks, strict=True):
        for number, (name, group) in enumerate(sorted(groups(runs, task).items())):
            colour, curves = COLOURS[number % len(COLOURS)], list[list[list[float]]]()
            for run in group:
                curves.append([[point[key] for point in run["points"]] for key in _MEASURED])
                axis.plot(curves[-1][1], curves[-1][0], color=colour, alpha=0.25, linewidth=0.8)
            rewards, apart = (
                [
                    statistics.fmean(values)
                    for values in zip(*(c[part] for c in curves), strict=True)
                ]
                for part in (0, 1)
            )
            axis.plot(apart, rewards, color=colour, label=name, marker="o", markersize=3)
        apart, rewards = ([each[key] for each in best[task]] for key in reversed(_MEASURED))
        axis.plot(apart, rewards, color="#777777", label="best of N", linestyle="--")
        axis.set_title(task)
        axis.set_xlabel("divergence from the base, nats an answer")
        axis.set_ylabel("held-out reward")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    columns = min(2 * len(tasks), 4)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    save_figure(figure, path)
