"""Runs beside each other in one picture: loss, held-out bits per byte, learning rate, tokens/s."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from griffin.outputs import whole_file
from griffin.train.files import no_run

# Okabe and Ito's colours, which colour-blind readers tell apart; griffin's is the first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_PANELS = (
    ("loss", "loss, nats a token"),
    ("held_out_bits_per_byte", "held out, bits per byte"),
    ("learning_rate", "learning rate"),
    ("tokens_per_second", "tokens/s"),
)
_AROUND = 4  # lines before and after a loss whose median, with its own, is drawn over it


def plot_runs(runs: Sequence[Path], path: Path) -> None:
    """Draw the logs of runs' folders, over tokens, into a PNG, SVG or PDF file.

    ValueError if a folder has no log with a line in it, or there is no matplotlib to draw with.
    """
    figure = new_figure(11, 7)
    from matplotlib import ticker

    logs = {name: read_log(run) for name, run in _names(runs).items()}
    axes = figure.subplots(2, 2, sharex=True)
    for axis, (key, title) in zip(axes.flat, _PANELS, strict=True):
        for number, (name, log) in enumerate(logs.items()):
            _draw(axis, log, key, name, COLOURS[number % len(COLOURS)])
        axis.set_title(title)
        axis.tick_params(labelbottom=True)
        axis.set_xlabel("tokens")
        axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        if key == "tokens_per_second":
            axis.yaxis.set_major_formatter(ticker.EngFormatter(sep=""))
            axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    save_figure(figure, path)


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure of so many inches; ValueError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ValueError("a plot needs matplotlib: pip install 'griffin-lm[plot]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure in the format that the path's ending says, PNG without one; whole or not at
    all."""
    with whole_file(path) as beside:
        figure.savefig(beside, dpi=150, format=path.suffix.removeprefix(".") or "png")


def read_log(run: Path) -> list[dict[str, Any]]:
    """Return the entries of a run's log that can be read; ValueError if there are none."""
    path, entries = run / "log.jsonl", list[dict[str, Any]]()
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise no_run(path, error) from error
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and isinstance(entry.get("tokens"), int):
            entries.append(entry)
    if not entries:
        raise ValueError(f"{path} has no line to draw yet; a run writes one every train.log_every")
    return entries


def _draw(axis: Any, log: list[dict[str, Any]], key: str, name: str, colour: str) -> None:
    points = [
        (entry["tokens"], entry[key]) for entry in log if isinstance(entry.get(key), float | int)
    ]
    if not points:
        return
    tokens, values = zip(*points, strict=True)
    if key != "loss" or len(points) < 20:
        marker = "o" if len(points) < 20 else None
        axis.plot(tokens, values, color=colour, label=name, marker=marker, markersize=4)
        return
    axis.plot(tokens, values, color=colour, alpha=0.25, linewidth=0.8)
    near = [values[max(0, at - _AROUND) : at + _AROUND + 1] for at in range(len(values))]
    middle = [statistics.median(part) for part in near]
    axis.plot(tokens, middle, color=colour, label=name)
    spikes = [(entry["tokens"], entry["loss"]) for entry in log if "spike" in entry]
    if spikes:
        axis.scatter(*zip(*spikes, strict=True), color=colour, marker="x", s=30, zorder=3)


def _names(runs: Sequence[Path]) -> dict[str, Path]:
    """Return runs by the names of their folders, by their paths where two have the same."""
    short = [run.resolve().name for run in runs]
    return {
        (name if short.count(name) == 1 else str(run)): run
        for name, run in zip(short, runs, strict=True)
    }
