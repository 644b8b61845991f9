"""Results by length as pictures: bits a byte by position, and right answers by length of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from griffin.evaluate.positions import PositionSpan
from griffin.evaluate.recalled import Recalled
from griffin.train.plot import COLOURS, new_figure, save_figure


def draw_positions(
    lines: Mapping[str, Sequence[PositionSpan]], windows: Mapping[str, int], path: Path
) -> None:
    """Draw bits a byte against the position, a line a model.

    windows: the attention window of each model, marked by a dotted line in its colour.
    Raises ValueError where there is no matplotlib.
    """
    figure, axis = new_axis("tokens read before", "bits a byte")
    for number, (name, spans) in enumerate(lines.items()):
        middle = [(max(span.begin, 1) * max(span.end, 1)) ** 0.5 for span in spans]
        bits = [span.bits_per_byte for span in spans]
        axis.plot(middle, bits, marker="o", label=name, color=COLOURS[number % len(COLOURS)])
        _mark(axis, windows.get(name), COLOURS[number % len(COLOURS)])
    axis.legend()
    save_figure(figure, path)


def draw_recall(
    lines: Mapping[str, Sequence[Recalled]], windows: Mapping[str, int], path: Path
) -> None:
    """Draw the share of right answers against the length of the text, a line a task and model.

    windows: as in `draw_positions`. Raises ValueError where there is no matplotlib.
    """
    figure, axis = new_axis("tokens of the text", "right answers")
    number = 0
    for name, found in lines.items():
        for task in dict.fromkeys(each.task for each in found):
            of = [each for each in found if each.task == task]
            axis.errorbar(
                [each.tokens for each in of],
                [each.exact for each in of],
                [each.stderr for each in of],
                marker="o",
                capsize=3,
                color=COLOURS[number % len(COLOURS)],
                label=task if len(lines) == 1 else f"{name}, {task}",
            )
            number += 1
        _mark(axis, windows.get(name), "#888888")
    axis.set_ylim(-0.03, 1.03)
    axis.legend()
    save_figure(figure, path)


def new_axis(across: str, up: str) -> tuple[Any, Any]:
    """Return a matplotlib figure and its axis, doublings apart across; ValueError without
    matplotlib."""
    figure = new_figure(7.5, 4.2)
    axis = figure.subplots()
    axis.set_xscale("log", base=2)
    axis.set_xlabel(across)
    axis.set_ylabel(up)
    axis.grid(alpha=0.3)
    return figure, axis


def _mark(axis: Any, window: int | None, colour: str) -> None:
    if window:
        axis.axvline(window, linestyle=":", color=colour)
        axis.annotate("window", (window, 0.98), xycoords=("data", "axes fraction"), fontsize=8)
