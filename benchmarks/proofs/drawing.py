"""The proofs' pictures: right answers by length, and what rounding costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from griffin.evaluate.drawing import new_axis
from griffin.train.plot import COLOURS, save_figure


def draw_right(
    lines: Mapping[str, Sequence[Mapping[str, float]]], trained: int, path: Path
) -> None:
    """Draw the share of right answers against the length of the text, a line a model.

    lines:   of each model, by seed: the share by length.
    trained: the length of training, marked; bars go from the worst seed to the best.
    """
    figure, axis = new_axis("tokens of the text", "right answers")
    for number, (name, seeds) in enumerate(lines.items()):
        lengths = [int(length) for length in seeds[0]]
        each = [[seed[str(length)] for seed in seeds] for length in lengths]
        mean = [sum(shares) / len(shares) for shares in each]
        below = [middle - min(shares) for middle, shares in zip(mean, each, strict=True)]
        above = [max(shares) - middle for middle, shares in zip(mean, each, strict=True)]
        axis.errorbar(
            lengths, mean, [below, above], marker="o", capsize=3, color=COLOURS[number], label=name
        )
    axis.axvline(trained, linestyle=":", color="#888888")
    axis.annotate("training", (trained, 0.5), xycoords=("data", "axes fraction"), fontsize=8)
    axis.set_ylim(-0.03, 1.03)
    axis.legend()
    save_figure(figure, path)


def draw_rises(rises: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw by how much bits per byte rise, a bar a model and rounding. rises: of each model, by
    rounding, as a share of what they are without it."""
    figure, axis = new_axis("bits per byte more than as stored, %", "")
    axis.set_xscale("linear")
    names = [*dict.fromkeys(name for each in rises.values() for name in each)]
    high = 0.8 / max(1, len(rises))
    for number, (model, each) in enumerate(rises.items()):
        places = [names.index(name) + (number - (len(rises) - 1) / 2) * high for name in each]
        axis.barh(
            places, [100 * r for r in each.values()], high, color=COLOURS[number], label=model
        )
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.legend()
    save_figure(figure, path)
