"""`griffin finetune MODEL`: make a model one's own, by answers, preferences or rewards."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from griffin.cli.shared.model_source import set_threads

if TYPE_CHECKING:
    from griffin.train.recipe import Recipe
    from griffin.tune.budget import RunBudget

_METHODS = ("lora", "full", "state", "dpo", "jbond", "grpo", "rloo")


@click.command("finetune")
@click.argument("model", metavar="MODEL")
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    help="JSONL, parquet or text to learn from, a file or a folder; may be given several times.",
)
@click.option(
    "--method",
    type=click.Choice(_METHODS),
    default="lora",
    show_default=True,
    help=(
        "lora, full, state: answers as they are written; dpo: pairs of answers; jbond, grpo, rloo:"
        " a reward for the model's own."
    ),
)
@click.option(
    "--reward",
    default="",
    metavar="FILE.py:FUNCTION",
    help="What jbond, grpo and rloo call with prompt and answer.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="The run's folder [default: runs/MODEL-METHOD]."
)
@click.option(
    "--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a recipe's value."
)
@click.option("--print-recipe", is_flag=True, help="Print the recipe that this is, and exit.")
@click.option("--plan", "plan_only", is_flag=True, help="Say what it takes, and exit.")
@click.option(
    "--product-rate",
    type=click.FloatRange(0, min_open=True),
    help="With --plan: operations a second in matrix products [default: measured].",
)
@click.option(
    "--show-data",
    type=click.IntRange(1),
    metavar="N",
    help="Train nothing; prepare the data and print N rows, what is counted in green.",
)
@click.option("--extend", is_flag=True, help="Go on with a run whose budget was another.")
@click.option("--skip-bad", is_flag=True, help="Pass over rows that cannot be read.")
@click.option("--force", is_flag=True, help="Train also where memory is said not to suffice.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads [default: torch's choice].")
@click.option("--device", default="cpu", show_default=True, help="Where to train: cpu, cuda, ...")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def command(
    model: str,
    data: tuple[Path, ...],
    method: str,
    reward: str,
    out: Path | None,
    changes: tuple[str, ...],
    print_recipe: bool,
    plan_only: bool,
    product_rate: float | None,
    show_data: int | None,
    extend: bool,
    skip_bad: bool,
    force: bool,
    threads: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Tune MODEL on your data: a checkpoint as every verb takes it, or a recipe (FILE.toml) with a
    section [tune], which then says all the rest.

    \b
    griffin finetune MODEL --data chats.jsonl                    a LoRA, on answers alone
    griffin finetune MODEL --data pairs.jsonl --method dpo       from chosen and rejected
    griffin finetune MODEL --data prompts.jsonl --method jbond --reward reward.py:reward

    At the end the run's folder holds what was learned (adapter/, model/ or a state) and
    results.json: held-out loss and five answers, before and after. Ctrl-C leaves a checkpoint, and
    the same command goes on from there.
    """
    recipe = _recipe(model, data, method, reward, changes)
    if print_recipe:
        from griffin.tune.defaults import as_toml

        click.echo(as_toml(recipe.to_dict()), nl=False)
        return

    set_threads(threads)
    from griffin.cli.shared.train_plan import device_bytes, print_train_plan
    from griffin.loading import check_device

    check_device(device)
    if plan_only:
        there, counted = device_bytes(device), None
        if recipe.train.epochs:
            counted = _counted(recipe, skip_bad)
        print_train_plan(model, recipe, there, product_rate, True, as_json, counted)
        return
    folder = out or Path("runs") / f"{Path(model.removesuffix('.toml')).name}-{recipe.tune.method}"  # pyright: ignore[reportOptionalMemberAccess]
    if show_data:
        from griffin.cli.shared.rows import show_rows

        show_rows(recipe, folder, show_data, skip_bad, as_json)
        return
    from griffin.cli.shared.training import (
        ending,
        print_results,
        say_what_is_slow,
        watch_products,
    )
    from griffin.train.report import Reporter
    from griffin.train.scale.ranks import Ranks
    from griffin.tune.export import export, measure_before
    from griffin.tune.methods import run_of
    from griffin.tune.plan import check_tuning_memory

    ranks = Ranks.join(device)
    kind = run_of(recipe)
    kind.check(recipe, ranks)
    if not force:
        check_tuning_memory(recipe, device_bytes(device), ranks.world)
    reporter = Reporter()
    with ending(ranks, reporter, "the same command goes on from there"):
        say_what_is_slow(recipe, device, ranks, reporter)
        with kind(
            recipe, folder, reporter, device, extend=extend, ranks=ranks, skip_bad=skip_bad
        ) as run:
            watch_products(run, recipe)
            with run.stoppable():
                measure_before(run)
                run.run()
                results = export(run)
    base = recipe.tune.base  # pyright: ignore[reportOptionalMemberAccess]
    print_results(results, as_json, partial(_lines, model=str(recipe.base_place), base=base))


def _recipe(
    model: str, data: tuple[Path, ...], method: str, reward: str, changes: tuple[str, ...]
) -> Recipe:
    """Return the recipe that a command is."""
    from griffin.train.recipe import load_recipe, recipe_of
    from griffin.train.recipe.tune import ONLINE
    from griffin.tune.defaults import default_recipe

    if model.endswith(".toml"):
        source = click.get_current_context().get_parameter_source("method")
        if data or reward or source is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"{model} says what is read and rewarded, and by which method it learns; change it"
                " with --set, or give a model"
            )
        recipe = load_recipe(Path(model), changes)
        if recipe.tune is None:
            raise click.UsageError(f"{model} has no section [tune]: it is for griffin train")
        return recipe
    if not data:
        raise click.UsageError("--data is missing: a file of rows to learn from, such as JSONL")
    for path in data:
        if not path.expanduser().exists():
            raise click.UsageError(f"--data {path}: there is no such file or folder")
    if reward and method not in ONLINE:
        raise click.UsageError(
            f"--reward is for --method {', '.join(ONLINE)}; {method} asks no reward: leave it out,"
            " or name one of these"
        )
    recipe = recipe_of(default_recipe(model, method, data, reward), changes)
    if recipe.tune is None or recipe.tune.method != method:
        named = recipe.tune.method if recipe.tune is not None else "none"
        raise click.UsageError(
            f"--method is {method} and --set says tune.method = {named}: give --method {named}"
            " alone, which brings settings of its own"
        )
    return recipe


def _counted(recipe: Recipe, skip_bad: bool) -> RunBudget:
    """Return how many steps the epochs of a recipe are: its data is read for that."""
    import torch

    from griffin.train.report import Reporter
    from griffin.tune.budget import count_budget

    return count_budget(recipe, Reporter(), workers=torch.get_num_threads(), skip_bad=skip_bad)


def _lines(results: dict[str, Any], model: str, base: str) -> list[str]:
    """Return results in lines. model: as chat takes it. base: the type that its weights had, "" as
    stored."""
    from griffin.quant import FORMATS

    before, after = results["before"] or {}, results["after"]
    kept = next(key for key in ("adapter", "full", "state") if key in results)
    lines = [
        f"{results[kept]}: {results['trained_parameters']:,} trained parameters,"
        f" {results['bytes'] / 1e6:,.2f} MB"
    ]
    for key, value in after.items():
        if isinstance(value, float):
            was = f"{before[key]:.4f} -> " if isinstance(before.get(key), float) else ""
            lines.append(f"{key.replace('_', ' ')}: {was}{value:.4f}")
    old = {each["prompt"]: each["answer"] for each in before.get("answers", ())}
    for each in after.get("answers", ()):
        lines += ["", each["prompt"].strip()]
        if each["prompt"] in old:
            lines.append(f"  before: {old[each['prompt']]!r}")
        lines.append(f"  after:  {each['answer']!r}")
    given = [] if kept == "full" else ["--model", model]
    if base:
        given += ["--quantize" if base in FORMATS else "--dtype", base]
    words = ["griffin", "chat", *given, f"--{'model' if kept == 'full' else kept}", results[kept]]
    return [*lines, "", f"to use it: {shlex.join(words)}"]


if __name__ == "__main__":
    command()
