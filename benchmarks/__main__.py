"""`python -m benchmarks`: rivals on the same work, and the server beside its engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmarks.draft import draft
from benchmarks.parts import attention, joined, unit
from benchmarks.proofs.command import bits, extrapolation, induction, screen
from benchmarks.rivals import RIVALS, SHAPE, gguf_options, llama_cpp
from griffin.cli import Verbs
from griffin.cli import main as verbs
from griffin.cli.bench.command import command as bench
from griffin.cli.bench.command import number, numbers, suite
from griffin.cli.bench.gpu import gpu as on_a_gpu
from griffin.cli.bench.gpu import interpreted, sit
from griffin.cli.bench.report import deliver

_WEIGHTS = "27 thousand weights, or 2.7 million in nano's blocks."
_AGAINST = (
    click.Option(
        ["--against"],
        type=click.Choice(list(RIVALS)),
        multiple=True,
        help="Run a rival on the same work, taking turns. Repeatable.",
    ),
    *gguf_options(required=False),
    click.Option(
        ["--patience"],
        type=click.FloatRange(min=0, min_open=True),
        default=600.0,
        show_default=True,
        help="Seconds a rival gets for one answer; then it is left out.",
    ),
)


class Benchmarks(Verbs):
    """A group with the manners of `griffin`: errors in one line, 2 for misuse."""

    list_commands = click.Group.list_commands
    get_command = click.Group.get_command
    format_commands = click.Group.format_commands


@click.group(cls=Benchmarks, context_settings=verbs.context_settings)
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
@click.pass_context
def main(ctx: click.Context, debug: bool) -> None:
    """Measure what the package does not: rivals on the same work, and load over HTTP.

    Options, reports and tables are those of `griffin bench`, whose suites of our own speed need no
    checkout.
    """
    ctx.obj = {"debug": debug}


def _beside_rivals(ours: click.Command) -> click.Command:
    """Return a suite of `griffin bench` that takes rivals too."""

    def run(against: Sequence[str], gguf: Path | None, gguf_shape: str, **given: Any) -> None:
        rivals = {name: RIVALS[name] for name in against}
        if "llama.cpp" in rivals:
            if gguf is None:
                raise click.UsageError(
                    "--against llama.cpp needs --gguf FOLDER, where its weights are or go"
                )
            rivals["llama.cpp"] = llama_cpp(gguf, gguf_shape)
        assert ours.callback is not None
        ours.callback(against=list(rivals.values()), **given)

    return click.Command(ours.name, params=[*ours.params, *_AGAINST], callback=run, help=ours.help)


for _name in ("decode", "prefill", "batch", "context", "load"):
    main.add_command(_beside_rivals(bench.commands[_name]))


main.add_command(
    suite(
        "benchmarks.serve:serve",
        """Serve requests over HTTP: what the server costs above the engine.

        The same requests go to the engine by a call and to the server before it, by turns; the
        limit of the server is the engine alone. Streams, without the prefix cache and without
        sessions.
        """,
        numbers("--clients", "clients", "That ask at a time", 1, 8, 64),
        number("--requests", "Of each client in a round.", 4),
        number("--prompt", "Tokens of a prompt.", 64),
        number("--slots", "Of the engine.", 8),
        number("--chunk", "Prompt tokens a call reads.", 64),
        click.option(
            "--tokenizer", metavar="PATH", help="Where the model has none beside its weights."
        ),
    )
)

main.add_command(
    suite(
        "benchmarks.offline:offline",
        """Answer a file of prompts as `griffin batch` does, beside one after another.

        The prompts begin alike, and the prefix cache is on both ways. --tokens is the length of
        each answer.
        """,
        number("--prompts", "Lines of the file.", 200),
        number("--alone", "Lines that are also answered one after another.", 10),
        number("--shared", "Tokens that all prompts begin with.", 256),
        number("--slots", "Answers at a time.", 16),
        number("--chunk", "Prompt tokens a call reads.", 64),
        click.option(
            "--tokenizer", metavar="PATH", help="Where the model has none beside its weights."
        ),
    )
)


@main.command("train")
@click.option("--shape", type=click.Choice(["42m", "5.9m", "toy"]), default="5.9m")
@numbers("--length", "lengths", "Tokens of a row", 512, 2048, 8192, 16_384)
@number("--tokens", "Of a step, in as many rows as they fill.", 16_384)
@click.option(
    "--against",
    type=click.Choice(["transformer", "transformers", "torch.compile"]),
    multiple=True,
    default=("transformer",),
    show_default=True,
    help="A transformer of equal size; transformers' RecurrentGemma; ours compiled. Repeatable.",
)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32")
@number("--threads", "CPU threads [default: one for each CPU].")
@number("--rounds", "Steps that each takes.", 3)
@number("--longest", "Rows that transformers' RecurrentGemma gets at most.", 2048)
@click.option("--profile", is_flag=True, help="Say where the time of a step goes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a measurement.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
def train(shape: str, as_json: bool, out: Path | None, threads: int | None, **given: Any) -> None:
    """Train beside a transformer of equal size, by turns in one process."""
    from benchmarks.train import train as measure
    from griffin.bench import machine
    from griffin.bench.measurement import Report

    report = Report(
        command=machine.command(),
        commit=machine.commit(),
        machine=machine.describe(("transformers",)),
    )
    for found in measure(report, shape, threads=threads or machine.cores(), **given):
        if as_json:
            click.echo(json.dumps(found.to_dict()))
        else:
            click.echo(
                f"{found.program}, {found.context:,}: {found.tokens_per_second:,.4g}", err=True
            )
    deliver(report, as_json, out)


@main.command("lora")
@click.option("--model", "-m", default="nano", show_default=True, metavar="NAME")
@click.option("--quantize", type=click.Choice(["int8", "int4"]), help="Round the weights first.")
@number("--length", "Tokens of a row.", 2048)
@number("--rows", "Of a step.", 1)
@number("--rank", "Of the LoRA.", 16)
@click.option("--checkpoint", type=click.Choice(["none", "blocks"]), default="blocks")
@number("--threads", "CPU threads [default: one for each CPU].")
@number("--rounds", "Steps that are taken.", 1)
@click.option("--profile", is_flag=True, help="Say where the time of one more step goes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a measurement.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
def lora(
    model: str,
    quantize: str | None,
    length: int,
    rows: int,
    checkpoint: str,
    threads: int | None,
    as_json: bool,
    out: Path | None,
    **given: Any,
) -> None:
    """Steps of a LoRA on a frozen base: memory and time, as `griffin finetune` takes them."""
    from benchmarks.lora import load_base
    from benchmarks.lora import lora as measure
    from griffin.bench import machine
    from griffin.bench.measurement import Report
    from griffin.bench.training import Setting

    report = Report(command=machine.command(), commit=machine.commit(), machine=machine.describe())
    setting = Setting(rows=rows, length=length, threads=threads or machine.cores())
    keep_every = 1 if checkpoint == "blocks" else 0
    found = measure(report, load_base(model, quantize), setting, keep_every=keep_every, **given)
    if as_json:
        click.echo(json.dumps(found.to_dict()))
    deliver(report, as_json, out)


@main.command("alignment")
@click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="NAME",
    help="sort, similarity; sort, exact; add, digits. Repeatable [default: all].",
)
@number("--seeds", "Runs of each method.", 3)
@number("--steps", "Of each run.", 60)
@click.option("--shape", type=click.Choice(["small", "nano"]), default="small", help=_WEIGHTS)
@number("--threads", "CPU threads.", 1)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
def alignment(
    tasks: Sequence[str], seeds: int, steps: int, shape: str, threads: int, out: Path
) -> None:
    """Reward against divergence: J-BOND, REINFORCE, GRPO and best-of-N, on tasks made by program.

    Runs that are in the folder are not done again.
    """
    import torch

    from benchmarks.alignment.runs import compare
    from benchmarks.alignment.tasks import TASKS

    for name in tasks:
        if name not in TASKS:
            raise click.UsageError(f"no task {name!r}; there are: {'; '.join(TASKS)}")
    torch.set_num_threads(threads)
    compare(out, tasks or list(TASKS), seeds, steps, click.echo, shape)


@main.command("tuning")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the results."
)
@number("--steps", "Of every run.", 150)
def tuning(out: Path, steps: int) -> None:
    """A state, adapters of three ranks and all weights on one task; what is there is not run
    again."""
    from benchmarks.tuning import compare, table

    click.echo(table(compare(out, lambda line: click.echo(line, err=True), steps)))


def _gpu(dry_run: bool, **given: Any) -> None:
    interpreted(dry_run)
    from benchmarks.gpu import ROWS  # imports torch

    sit(ROWS, dry_run=dry_run, **given)


gpu = click.Command(
    "gpu",
    params=list(on_a_gpu.params),
    callback=_gpu,
    help="Measure other people's models and kernels on a GPU, and ours beside them.",
)
for _other in (attention, joined, unit, draft, gpu, induction, extrapolation, bits, screen):
    main.add_command(_other)


@main.command("adapter")
@click.option("--model", "-m", default="nano", show_default=True, metavar="DIR")
@click.option(
    "--format",
    "formats",
    type=click.Choice(["bf16", "int8", "int4"]),
    multiple=True,
    default=("bf16", "int8", "int4"),
    show_default=True,
    help="Of the base. Repeatable.",
)
@number("--rank", "Of the adapter, in every linear layer.", 16)
@number("--rows", "Sequences that are decoded together.", 1)
@number("--prompt", "Tokens read before.", 64)
@number("--pairs", "Of turns, with the adapter and without.", 25)
@number("--threads", "CPU threads [default: one for each CPU].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a format.")
def adapter(
    model: str, formats: tuple[str, ...], threads: int | None, as_json: bool, **given: int
) -> None:
    """Decode with an adapter and without, by turns: what it costs, beside its bytes."""
    import torch

    from benchmarks.adapter import adapter as measure
    from griffin.bench import machine

    torch.set_num_threads(threads or machine.cores())
    for cost in measure(model, formats, **given):
        if as_json:
            click.echo(json.dumps(asdict(cost) | {"bytes_share": cost.bytes_share}))
            continue
        click.echo(
            f"{cost.format}, {cost.rows} rows: {1000 * cost.without:.2f} ms a token, with the"
            f" adapter {1000 * cost.with_:.2f} ms, {100 * cost.share:+.1f} %; its"
            f" {cost.adapter_bytes / 1e6:,.1f} MB are {100 * cost.bytes_share:.1f} % of the model's"
        )


@main.command("screened")
@click.option("--model", "-m", required=True, metavar="DIR", help="With a packed head.")
@number("--prompt", "Tokens read before.", 64)
@number("--rounds", "Turns of each.", 40)
@number("--threads", "CPU threads [default: one for each CPU].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def screened(model: str, threads: int | None, as_json: bool, **given: int) -> None:
    """Decode with the whole head and behind a screen, by turns of two tokens in one process."""
    import torch

    from benchmarks.screened import screened as measure
    from griffin.bench import machine

    torch.set_num_threads(threads or machine.cores())
    about = {"command": machine.command(), "commit": machine.commit()}
    about |= {"machine": machine.describe()}
    found = list(measure(model, **given))
    if as_json:
        click.echo(json.dumps(about | {"ways": [asdict(each) for each in found]}, indent=1))
        return
    for each in found:
        low, high = each.quartiles
        click.echo(
            f"{each.way}: {1000 * each.seconds:.2f} ms a token, {each.faster:.3f} times ({low:.3f}"
            f" to {high:.3f}); by its bytes {each.of_bytes:.3f}"
        )


@main.command("gguf")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--format", type=click.Choice(RIVALS["llama.cpp"].formats), default="int4", show_default=True
)
@click.option("--shape", default="gemma-2b", show_default=True, help=SHAPE)
def gguf(path: Path, format: str, shape: str) -> None:
    """Write a Gemma of random weights for llama.cpp."""
    from benchmarks.gemma_gguf import shape_named, write_gemma

    click.echo(f"{path}: {write_gemma(path, shape_named(shape), format) / 1e9:.3f} GB")


@main.command("hf")
@click.option("--model", "-m", default="nano", show_default=True, metavar="NAME")
@click.option("--quantize", type=click.Choice(["int8", "int4"]), help="Round the weights first.")
@click.option("--prompt", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--tokens", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
def hf(model: str, quantize: str | None, prompt: int, tokens: int, rounds: int) -> None:
    """transformers' generate on our trunk, beside LLM.generate."""
    import griffin
    from benchmarks.hf import beside

    llm = griffin.load(model, quantize=quantize)
    found = beside(llm, prompt=prompt, tokens=tokens, rounds=rounds)
    click.echo(
        f"LLM.generate {found.ours:.2f} tokens/s ({1000 * found.ours_cpu:.2f} ms of processor a"
        f" token), transformers' generate {found.theirs:.2f} ({1000 * found.theirs_cpu:.2f}):"
        f" {found.share:.2f} of it"
    )


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
