"""What a person sees while training runs: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from griffin.train.checkpoint import RunProgress
from griffin.train.recipe import TrainRecipe

_PLAIN_SECONDS = 20.0
_WAIT = 2.0  # seconds
# What a validation found, in words.
_HELD_OUT = {
    "held_out_bits_per_byte": "bits per byte",
    "held_out_reward": "reward",
    "held_out_loss": "loss",
    "held_out_accuracy": "accuracy",
}


class Reporter:
    """Tell a person on standard error how a run goes. quiet: say nothing at all."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(
            stderr=True, quiet=quiet, highlight=False, soft_wrap=True, emoji=False
        )
        # What printing takes is imported now: a signal that is told of comes in the middle of any
        # line, an import too, and printing then would find half a module.
        with self.console.capture():
            self.say("-")

    def say(self, line: str) -> None:
        """Print one line, above the progress bar if there is one."""
        self.console.print(line, markup=False)

    @contextlib.contextmanager
    def training(
        self, plan: TrainRecipe, progress: RunProgress
    ) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Yield a function that takes a step's log entry and shows loss or reward, tokens/s and
        time left."""
        begun, first, speed, told = time.monotonic(), progress.step, 0.0, 0.0
        mean: float | None = None
        columns = (TextColumn("training"), BarColumn(None), TextColumn("{task.fields[line]}"))
        bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        task = bar.add_task("training", total=plan.total_steps, completed=progress.step, line="")

        def show(entry: dict[str, Any]) -> None:
            nonlocal speed, mean, told
            # Running means over about twenty steps: a single step says little.
            weight = 0.05 if speed else 1.0
            speed += weight * (entry["tokens_per_second"] - speed)
            what = "loss" if entry.get("reward") is None else "reward"
            if (value := entry[what]) is not None:
                mean = value if mean is None else mean + 0.05 * (value - mean)
            done = max(entry["step"] - first, 1)  # what was owed of the step before comes first
            left = (time.monotonic() - begun) / done * (plan.total_steps - entry["step"])
            place = f"{entry['step']}/{plan.total_steps}"
            of = "none yet" if mean is None else f"{mean:.3f}"
            line = f"{place}  {what} {of}  {speed:,.0f} tokens/s  {_span(left)} left"
            bar.update(task, completed=entry["step"], line=line)
            if held_out := [key for key in _HELD_OUT if entry.get(key) is not None]:
                found = (f"  held out {entry[key]:.4f} {_HELD_OUT[key]}" for key in held_out)
                self.say(line + "".join(found))
                told = time.monotonic()
            elif bar.disable and time.monotonic() - told > _PLAIN_SECONDS:
                self.say(line)
                told = time.monotonic()

        with bar:
            yield show

    @contextlib.contextmanager
    def preparing(self, what: str, total: int) -> Iterator[Callable[[int, int], None]]:
        """Yield a function that takes bytes (of `total`) and documents done since it was last told.

        Nothing is shown in the first two seconds: most sets take no longer.
        """
        begun = told = time.monotonic()
        size = documents = 0
        columns = (TextColumn(what), BarColumn(None), TextColumn("{task.fields[line]}"))
        bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        task = bar.add_task(what, total=total, line="")

        def show(more: int, others: int) -> None:
            nonlocal size, documents, told
            size, documents, now = size + more, documents + others, time.monotonic()
            if now - begun < _WAIT:
                return
            left = (now - begun) / max(size, 1) * max(total - size, 0)
            line = f"{documents / (now - begun):,.0f} documents/s  {_span(left)} left"
            if bar.disable and (told == begun or now - told > _PLAIN_SECONDS):
                self.say(f"{what}: {line}")
                told = now
            bar.start()
            bar.update(task, completed=size, line=line)

        try:
            yield show
        finally:
            bar.stop()

    @contextlib.contextmanager
    def measuring(self, tokens: int) -> Iterator[Callable[[int], None]]:
        """Yield a function that moves a progress bar of `tokens` on."""
        with Progress(console=self.console, disable=not self.console.is_terminal) as bar:
            task = bar.add_task("measuring", total=tokens)
            yield lambda count: bar.advance(task, count)


def _span(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
