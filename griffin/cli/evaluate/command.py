"""`griffin evaluate`: which measure is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from griffin.cli.shared.model_source import ModelSource, model_options

# What is measured: exactly one of these options is given.
MODES = ("tasks",)


@click.command("evaluate")
@click.option(
    "--tasks",
    metavar="NAMES",
    help="table2, safety, tasks and groups of lm-eval, files of your own; commas between.",
)
@click.option("--plan", is_flag=True, help="Say what is to be read and written, and how long.")
@click.option("--limit", type=click.IntRange(1), help="So many questions of each task, the first.")
@click.option("--shots", type=click.IntRange(0), help="Examples before a question [the task's].")
@click.option("--chat", is_flag=True, help="Ask as a user's turn, for models tuned to talk.")
@click.option(
    "--windows",
    type=click.IntRange(2),
    metavar="TOKENS",
    help="Cut whole texts so, as for models with a limit [they are read from end to end].",
)
@click.option("--seed", type=click.IntRange(0), default=1234, show_default=True)
@click.option("--offline", is_flag=True, help="Fetch nothing; data sets must be here already.")
@click.option("--run-code", is_flag=True, help="Run what the model writes, where tasks need it.")
@click.option(
    "--out",
    "-o",
    default="evaluation.json",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of the results; answers so far are kept beside it.",
)
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def command(tasks: str | None, source: ModelSource, as_json: bool, **options: Any) -> None:
    """Measure a model by tasks of lm-eval (pip install 'griffin-lm[eval]').

    What questions have in common is read once; results are those of separate readings, to the bit.
    Killed at any moment, the same command goes on where it ended.
    """
    given = [mode for mode, value in (("tasks", tasks),) if value is not None]
    if len(given) != 1:
        raise click.UsageError(f"say what to measure: {', '.join(f'--{mode}' for mode in MODES)}")
    if tasks is not None:
        from griffin.cli.evaluate.tasks import evaluate_tasks

        evaluate_tasks(tasks, source, as_json=as_json, **options)
