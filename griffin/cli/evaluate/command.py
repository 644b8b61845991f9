"""`griffin evaluate`: which measure is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from griffin.cli.evaluate.long_texts import Lengths
from griffin.cli.evaluate.metadata import JsonObject
from griffin.cli.shared.model_source import ModelSource, model_options
from griffin.cli.shared.pictures import Picture

# What is measured: exactly one of these options is given, and no option of another.
MODES: dict[str, set[str]] = {
    "tasks": {
        *("plan", "limit", "shots", "chat", "windows", "seed", "offline", "run_code", "metadata"),
        "out",
    },
    "texts": {"by_position", "plot"},
    "long": {"lengths", "questions", "prose", "seed", "plot"},
    "held_out": {"changes"},
}
_NAMES = {"texts": "--text", "changes": "--set"}


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
    "--metadata",
    type=JsonObject(),
    default="{}",
    help='What tasks that make their texts are told: {"max_seq_lengths": [4096]}.',
)
@click.option(
    "--out",
    "-o",
    default="evaluation.json",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of the results; answers so far are kept beside it.",
)
@click.option(
    "--text",
    "texts",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A text to read from end to end: bits a byte. Repeatable.",
)
@click.option("--by-position", is_flag=True, help="Of all texts together, by tokens read before.")
@click.option(
    "--long",
    metavar="NAMES",
    help="niah, phonebook, copy, selective_copy, induction, recall; commas between.",
)
@click.option(
    "--lengths",
    type=Lengths(),
    default="1k,2k,4k,8k",
    show_default=True,
    help="Of the long texts, in tokens.",
)
@click.option(
    "--questions", type=click.IntRange(1), default=20, show_default=True, help="Of each length."
)
@click.option(
    "--prose",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The text that niah hides its sentence in [made up].",
)
@click.option(
    "--held-out",
    metavar="RECIPE",
    help="What a recipe of `griffin train` holds out: bits a byte, beside gzip and xz.",
)
@click.option("--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="In the recipe.")
@click.option("--plot", type=Picture(), metavar="FILE", help="Draw the results (.png, .svg, .pdf).")
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.pass_context
def command(ctx: click.Context, source: ModelSource, as_json: bool, **options: Any) -> None:
    """Measure a model: --tasks of lm-eval, --text files, --long texts that are made up, or what a
    recipe has --held-out.

    \b
    griffin evaluate --tasks table2 --model DIR        the paper's table (griffin-lm[eval])
    griffin evaluate --text book.txt --by-position     bits a byte, by what was read before
    griffin evaluate --long niah,copy --lengths 1k,8k  what is recalled, in the window and past it
    griffin evaluate --held-out nano --model DIR       what a training run reports

    What questions of tasks have in common is read once; results are those of separate readings, to
    the bit. Killed at any moment, --tasks goes on where it ended.
    """
    given = [mode for mode in MODES if options[mode]]
    if not given:
        raise click.UsageError(f"say what to measure: {', '.join(map(_name, MODES))}")
    if len(given) > 1:
        raise click.UsageError(f"one measure at a time, not {' and '.join(map(_name, given))}")
    (mode,) = given
    taken = {}
    for option in set[str]().union(*MODES.values()):
        if option in MODES[mode]:
            taken[option] = options[option]
        elif ctx.get_parameter_source(option) is not click.core.ParameterSource.DEFAULT:
            belongs = [_name(other) for other in MODES if option in MODES[other]]
            raise click.UsageError(f"{_name(option)} is of {', '.join(belongs)}")
    if options["windows"] and source.state:
        raise click.UsageError(
            "--windows cuts texts into pieces without BOS, which --state cannot stand before;"
            " give one of them"
        )
    if mode == "tasks":
        from griffin.cli.evaluate.tasks import evaluate_tasks

        evaluate_tasks(options[mode], source, as_json=as_json, **taken)
    elif mode == "texts":
        from griffin.cli.evaluate.texts import evaluate_texts

        evaluate_texts(options[mode], source, as_json=as_json, **taken)
    elif mode == "long":
        from griffin.cli.evaluate.long_texts import evaluate_recall

        evaluate_recall(options[mode], source, as_json=as_json, **taken)
    else:
        from griffin.cli.evaluate.held_out import evaluate_held_out

        evaluate_held_out(options[mode], source, as_json=as_json, **taken)


def _name(option: str) -> str:
    return _NAMES.get(option, f"--{option.replace('_', '-')}")
