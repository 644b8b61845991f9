"""`griffin export RUN OUT`: a checkpoint of a training run as a model that every verb takes."""

from __future__ import annotations

import json
from pathlib import Path

import click
from click.core import ParameterSource


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--best", is_flag=True, help="The checkpoint that did best on what was held out.")
@click.option("--step", type=click.IntRange(1), help="The checkpoint of this step.")
@click.option("--dtype", default="bfloat16", show_default=True, help="Type of the weights in OUT.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(run: Path, out: Path, best: bool, step: int | None, dtype: str, as_json: bool) -> None:
    """Write a checkpoint of the training run in the folder RUN to the new folder OUT.

    It is the newest one, unless --best or --step names another. OUT gets weights, config and
    tokenizer in Hugging Face's layout; of a run that trains an adapter, the adapter; of one that
    learns a state, OUT is the state's file. The run may be going on meanwhile.
    """
    if best and step is not None:
        raise click.UsageError("give --best or --step, not both")
    from griffin.checkpoints import parse_dtype
    from griffin.train.export_run import export_run
    from griffin.tune.export_run import export_adapter, export_state, read_tune

    wanted, told = parse_dtype(dtype), read_tune(run)
    trains = told[1].trains if told is not None else "full"
    source = click.get_current_context().get_parameter_source("dtype")
    if trains != "full" and source is ParameterSource.COMMANDLINE:
        what, kept = (
            ("an adapter", "in float32") if trains == "lora" else ("a state", "as the model's")
        )
        raise click.UsageError(
            f"--dtype is for runs that train all weights; {run} trains {what}, which is written"
            f" {kept}: leave it out"
        )
    if trains == "lora":
        made, kind, dtype = export_adapter(run, out, step, best=best), "adapter", "float32"
    elif trains == "state":
        made, kind, dtype = export_state(run, out, step, best=best), "state", "the model's type"
    else:
        made, kind = export_run(run, out, step, best=best, dtype=wanted), "model"
    least = made.progress.best
    measured: dict[str, float | None] = {
        "answers": {"best_held_out_bits_per_byte": least},
        "pairs": {"best_held_out_loss": least},
        "prompts": {"best_held_out_reward": least if least is None else -least},
    }[told[1].reads if told is not None else "answers"]
    facts = {
        kind: str(out),
        "checkpoint": str(made.checkpoint),
        "step": made.progress.step,
        "tokens": made.progress.tokens,
        **measured,
        "parameters": made.parameters,
        "dtype": dtype,
    }
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(
        f"{out}: {made.parameters:,} parameters in {dtype}, after {made.progress.step:,} steps"
        f" ({made.progress.tokens:,} tokens), from {made.checkpoint}"
    )
