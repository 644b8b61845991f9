"""What the verbs that train do alike: say what is slow, and how a run ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from griffin.cli.shared.train_plan import matrix_limit, slow_bfloat16

if TYPE_CHECKING:
    from griffin.train.recipe import Recipe
    from griffin.train.report import Reporter
    from griffin.train.run import TrainingRun
    from griffin.train.scale.ranks import Ranks


def say_what_is_slow(recipe: Recipe, device: str, ranks: Ranks, reporter: Reporter) -> None:
    """Say it where float32 products would be faster than the bfloat16 that a recipe asks for."""
    if device == "cpu" and ranks.is_writer and (hint := slow_bfloat16(recipe)):
        reporter.say(hint)


def watch_products(run: TrainingRun, recipe: Recipe) -> None:
    """Have a run on the CPU log its share of the rate that its products have alone."""
    if run.device.type == "cpu":
        run.matrix_limit = run.ranks.world * matrix_limit(recipe)[1]


@contextmanager
def ending(ranks: Ranks, reporter: Reporter, again: str) -> Iterator[None]:
    """Exit with 130 where the block is stopped, and with 1 where another rank failed; else leave
    the ranks.

    again: how to go on, which is said after a stop.
    """
    from griffin.train.scale.ranks import WriterFailedError
    from griffin.train.stopping import Interrupted

    try:
        yield
    except Interrupted as stop:
        if ranks.is_writer:
            reporter.say(f"{stop}\n{again}")
        sys.exit(130)
    except WriterFailedError:  # it says why
        sys.exit(1)
    ranks.close()


def print_results(
    results: dict[str, Any] | None,
    as_json: bool,
    lines: Callable[[dict[str, Any]], Sequence[str]],
) -> None:
    """Print what a run has come to, as JSON or in lines; None is that of a rank that says
    nothing."""
    if results is not None:
        click.echo(json.dumps(results) if as_json else "\n".join(lines(results)))
