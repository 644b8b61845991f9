"""What rewards did over the steps of the runs that were paid by them: read, and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from griffin.train.plot import COLOURS, new_figure, read_log, save_figure

Course = Sequence[Mapping[str, float]]
_KEYS = ("step", "held_out_reward", "kl_start", "ties")


def read_course(run: Path) -> list[dict[str, float]]:
    """Return held-out reward, nats from the start and ties where a run's log has the first.

    ties: the share of prompts whose answers are worth the same, so that nothing is learned there.
    """
    return [{key: e[key] for key in _KEYS} for e in read_log(run) if "held_out_reward" in e]


def draw_courses(courses: Mapping[str, Course], path: Path) -> None:
    """Draw the held-out reward by step, and by nats from the start, a line a method."""
    figure = new_figure(9, 3.6)
    panels = figure.subplots(1, 2, sharey=True)
    across_of = {"step": "step", "kl_start": "nats from the start"}
    for axis, (key, name) in zip(panels, across_of.items(), strict=True):
        for number, (method, course) in enumerate(courses.items()):
            across, up = [at[key] for at in course], [at["held_out_reward"] for at in course]
            axis.plot(across, up, color=COLOURS[number], label=method, marker="o", markersize=3)
        axis.set_xlabel(name)
        axis.grid(alpha=0.3)
    panels[0].set_ylabel("held-out reward")
    panels[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path)
