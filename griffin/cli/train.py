"""`griffin train RECIPE`: train a model from scratch."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from griffin.cli.shared.held_out import held_out_table
from griffin.cli.shared.model_source import set_threads
from griffin.cli.shared.rows import show_rows
from griffin.cli.shared.train_plan import device_bytes
from griffin.cli.shared.training import (
    ending,
    print_results,
    say_what_is_slow,
    watch_products,
)


def _list(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        from griffin.train.bundled import recipes

        for name, what in recipes().items():
            click.echo(f"{name:<20}{what}")
        ctx.exit()


@click.command("train")
@click.argument("names", nargs=-1, required=True, metavar="RECIPE")
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list,
    help="List the recipes that ship in this package and exit.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The run's folder [default: runs/NAME-OF-RECIPE]; with --plot the picture.",
)
@click.option(
    "--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a recipe's value."
)
@click.option(
    "--extend",
    is_flag=True,
    help="Go on with a run whose budget (train.tokens, steps) was another.",
)
@click.option(
    "--skip-bad",
    is_flag=True,
    help="Pass over rows that cannot be read, and list them in the run's data/bad_lines.jsonl.",
)
@click.option(
    "--plot",
    is_flag=True,
    help="Train nothing; draw the logs of one or several runs' folders into --out [runs.png].",
)
@click.option("--force", is_flag=True, help="Train also where memory is said not to suffice.")
@click.option(
    "--show-data",
    type=click.IntRange(1),
    metavar="N",
    help="Train nothing; prepare the run's data and print N rows, what is counted in green.",
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads [default: torch's choice].")
@click.option("--device", default="cpu", show_default=True, help="Where to train: cpu, cuda, ...")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the results as JSON on standard output."
)
def command(
    names: tuple[str, ...],
    out: Path | None,
    changes: tuple[str, ...],
    extend: bool,
    skip_bad: bool,
    plot: bool,
    force: bool,
    show_data: int | None,
    threads: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Train a model as RECIPE says: a TOML file, or the name of a bundled one (nano; --list).

    Ctrl-C finishes the rows at hand and writes a checkpoint; the same command goes on from there.
    At the end the run's folder holds model/ (weights, config, tokenizer), log.jsonl and
    results.json: bits per byte on the held-out documents, beside those of gzip and xz; `griffin
    evaluate --held-out RECIPE` takes the same measures of any model. --show-data N prints rows as
    the model will see them, and leaves the data for the training to come. --plot RUN [RUN...] draws
    loss, held-out bits per byte, learning rate and tokens/s of runs' folders.
    """
    if plot:
        from griffin.train.plot import plot_runs

        picture = out or Path("runs.png")
        plot_runs([Path(name) for name in names], picture)
        click.echo(f"{len(names)} runs drawn into {picture}")
        return
    if len(names) > 1:
        raise click.UsageError(
            f"one recipe at a time, not {', '.join(names)}; --plot takes several"
        )
    recipe = next(iter(names))

    from griffin.loading import check_device
    from griffin.train.bundled import find_recipe
    from griffin.train.loop import Trainer
    from griffin.train.plan import check_memory
    from griffin.train.recipe import load_recipe
    from griffin.train.report import Reporter
    from griffin.train.scale.ranks import Ranks

    set_threads(threads)
    check_device(device)
    reporter = Reporter()
    file = find_recipe(recipe)
    plan = load_recipe(file, changes)
    if plan.tune is not None:
        raise click.UsageError(f"{file} has a section [tune]: griffin finetune {recipe}")
    ranks = Ranks.join(device)
    from griffin.train.export import export

    if not show_data:
        Trainer.check(plan, ranks)
    if not (force or show_data):
        check_memory(plan, device_bytes(device), ranks.world)
    folder = out or Path("runs") / file.stem
    again = _again(recipe, out, changes, threads, device, ranks.world, skip_bad, force, extend)
    with ending(ranks, reporter, f"to go on: {again}"):
        if show_data:
            if ranks.is_writer:
                show_rows(plan, folder, show_data, skip_bad, as_json)
            return
        say_what_is_slow(plan, device, ranks, reporter)
        with Trainer(
            plan, folder, reporter, device, extend=extend, ranks=ranks, skip_bad=skip_bad
        ) as trainer:
            watch_products(trainer, plan)
            with trainer.stoppable():
                trainer.run()
                results = export(trainer)
    print_results(results, as_json, held_out_table)


def _again(
    recipe: str,
    out: Path | None,
    changes: tuple[str, ...],
    threads: int | None,
    device: str,
    world: int,
    skip_bad: bool,
    force: bool,
    extend: bool,
) -> str:
    started = ["torchrun", "--nproc-per-node", str(world), "-m", "griffin.cli"]
    words = [*(started if world > 1 else ["griffin"]), "train", recipe]
    words += ["--out", str(out)] if out is not None else []
    for change in changes:
        words += ["--set", change]
    words += ["--skip-bad"] if skip_bad else []
    words += ["--force"] if force else []
    words += ["--extend"] if extend else []
    words += ["--threads", str(threads)] if threads is not None else []
    words += ["--device", device] if device != "cpu" else []
    return shlex.join(words)


if __name__ == "__main__":
    command()
