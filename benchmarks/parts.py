"""Parts of a layer in training, by themselves: `python -m benchmarks attention|joined|unit`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from griffin.cli.bench.command import number, numbers

_DTYPE = click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32")
_THREADS = number("--threads", "CPU threads [default: one for each CPU].")
_ROUNDS = number("--rounds", "Of which the best counts.", 5)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a measurement.")
_OUT = click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")


@click.command("attention")
@numbers("--length", "lengths", "Tokens of a row", 512, 2048, 8192, 16_384)
@number("--tokens", "Of a call, in as many rows as they fill.", 8192)
@number("--heads", "Of queries, to one head of keys.", 4)
@number("--width", "Of a head.", 128)
@number("--window", "Tokens before a query that ours sees.", 1024)
@_DTYPE
@_THREADS
@_ROUNDS
def attention(lengths: Sequence[int], dtype: str, threads: int | None, **given: Any) -> None:
    """Window attention forward and backward, beside torch's causal one, by turns."""
    import torch

    from benchmarks.attention import attention as measure
    from griffin.bench import machine

    torch.set_num_threads(threads or machine.cores())
    for length in lengths:
        found = list(measure(length, dtype=getattr(torch, dtype), **given))
        click.echo(
            f"{found[0].rows} x {length:,} tokens, {dtype}: "
            + ", ".join(
                f"{each.name} {1000 * each.forward:.1f} + {1000 * each.backward:.1f} ms"
                for each in found
            )
            + f"; {found[-1].both / found[0].both:.2f} times {found[-1].name}"
        )


@click.command("joined")
@numbers("--width", "widths", "Of the model", 512, 2560)
@number("--head", "Width of a head, of which attention has one for its keys.", 128)
@number("--tokens", "Of a call.", 2048)
@_DTYPE
@_THREADS
@_ROUNDS
@_JSON
@_OUT
def joined(dtype: str, threads: int | None, as_json: bool, out: Path | None, **given: Any) -> None:
    """Projections of one input as one product, beside one by one: forward and backward."""
    import torch

    from benchmarks.joined import joined as measure
    from griffin.bench import machine
    from griffin.bench.measurement import Report

    threads = threads or machine.cores()
    torch.set_num_threads(threads)
    report = Report(command=machine.command(), commit=machine.commit(), machine=machine.describe())
    for pair in measure(dtype=dtype, threads=threads, **given):
        report.measurements += pair
        apart, together = pair
        if as_json:
            for each in pair:
                click.echo(json.dumps(each.to_dict()))
        else:
            click.echo(
                f"{apart.what}, {dtype}: apart {1000 * (apart.seconds or 0):.1f} ms, joined"
                f" {1000 * (together.seconds or 0):.1f} ms, {together.ratio:.3f} times as fast"
            )
    if out is not None:
        report.save(out)


@click.command("unit")
@number("--rows", "Documents of a call.", 1)
@number("--length", "Tokens of each.", 2048)
@number("--width", "Of the recurrence.", 2560)
@number("--blocks", "Of its gates.", 10)
@_DTYPE
@click.option("--scan", "alone", is_flag=True, help="The scan alone, in float32.")
@_THREADS
@_ROUNDS
@_JSON
@_OUT
def unit(
    rows: int,
    length: int,
    width: int,
    blocks: int,
    dtype: str,
    alone: bool,
    threads: int | None,
    rounds: int,
    as_json: bool,
    out: Path | None,
) -> None:
    """The recurrent unit in training, forward and backward, beside its products and copies."""
    import torch

    from benchmarks import unit as measure
    from griffin.bench import machine
    from griffin.bench.measurement import Report

    threads = threads or machine.cores()
    torch.set_num_threads(threads)
    report = Report(command=machine.command(), commit=machine.commit(), machine=machine.describe())
    kind = torch.float32 if alone else getattr(torch, dtype)
    found = (
        measure.scan(rows, length, width, rounds)
        if alone
        else measure.unit(rows, length, width, blocks, kind, rounds)
    )
    report.rates |= found.rates(str(kind).removeprefix("torch."))
    shape = f"{rows} x {length:,} x {width:,}"
    what = "scan" if alone else f"unit of {blocks} gates, {dtype}"
    beside = ("a copy", "the forward pass") if alone else ("the limit", "the limit")
    place: dict[str, Any] = {
        "program": "griffin",
        "model": f"{shape}, {'scan' if alone else f'{blocks} gates'}",
        "format": str(kind).removeprefix("torch."),
        "threads": threads,
        "batch": rows,
        "context": length,
    }
    report.measurements += found.measurements("scan" if alone else "unit", beside, place)
    if as_json:
        for each in report.measurements:
            click.echo(json.dumps(each.to_dict()))
    else:
        click.echo(
            f"{shape}, {what}: forward {1000 * found.forward:.1f} ms,"
            f" {found.forward / found.forward_limit:.2f} of {beside[0]}; backward"
            f" {1000 * found.backward:.1f} ms, {found.backward / found.backward_limit:.2f} of"
            f" {beside[1]}"
        )
    if out is not None:
        report.save(out)
