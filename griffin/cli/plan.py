"""`griffin plan`: what fits into a machine's memory, and how fast, before it is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from griffin.cli.shared.devices import memory_bytes, memory_of, place_of
from griffin.cli.shared.memory_plan import print_memory_plan
from griffin.cli.shared.model_source import ModelSource, set_threads
from griffin.cli.shared.sizes import Size
from griffin.cli.shared.train_plan import print_train_plan

if TYPE_CHECKING:
    import torch

    from griffin.capacity import Capacity
    from griffin.model import GriffinConfig

_BUFFER = 512 << 20  # bytes that are read to find the rate of memory
_SECONDS = 0.3  # of each of the two measurements, after their trials
# What belongs to serving alone.
_SERVING = (
    *("device", "disk", "revision", "dtype", "quantize", "screen", "adapter", "slots", "kept"),
    *("prefix_cache", "no_prefix_cache", "read_rate"),
)
_CACHE = 1 << 30  # the prefix cache's bytes if not given, where an eighth of the memory is not less


@click.command("plan")
@click.option(
    "--model",
    help=(
        "Folder, archive or bundled name, or a released shape such as recurrentgemma-2b, whose"
        " files need not be here."
    ),
)
@click.option(
    "--train", "recipe", metavar="RECIPE", help="Plan a training run instead of serving a model."
)
@click.option("--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="With --train.")
@click.option(
    "--ram",
    type=Size(),
    help="Memory for everything, such as 16G [with --train by default: this machine's].",
)
@click.option(
    "--device",
    default="cpu",
    show_default=True,
    help="Whose memory: cpu, cuda, cuda:1, ...; with --ram a GPU that is not here.",
)
@click.option("--disk", type=Size(), help="Disk for saved conversations, such as 100G.")
@click.option("--revision", help="Branch, tag or commit of a Hub repository.")
@click.option("--dtype", help="bfloat16, float32, ... [default: as stored; bfloat16 for a shape].")
@click.option("--quantize", help="Plan for int8 or int4.")
@click.option("--screen", is_flag=True, help="Plan for a preview of the head beside it.")
@click.option(
    "--adapter", metavar="[NAME=]FOLDER", multiple=True, help="A LoRA beside it. Repeatable."
)
@click.option(
    "--slots",
    type=click.IntRange(1),
    help="Conversations answered at once [default: as many as fit].",
)
@click.option(
    "--kept",
    type=click.IntRange(0),
    help="States outside the slots, of answers that are set aside [default: as many as slots].",
)
@click.option(
    "--prefix-cache",
    type=Size(),
    help="The most the prefix cache may take [default: 1G, at most an eighth of --ram].",
)
@click.option("--no-prefix-cache", is_flag=True, help="Plan without a prefix cache.")
@click.option("--read-rate", type=Size(), help="Bytes a second read from memory, such as 40GB.")
@click.option(
    "--product-rate",
    type=click.FloatRange(0, min_open=True),
    help="Operations a second in matrix products.",
)
@click.option(
    "--measure/--no-measure",
    default=True,
    help=(
        "Without --read-rate, measure both rates and try the model's first layers; takes a few"
        " seconds [measure]."
    ),
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="CPU threads to measure with [default: torch's choice].",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    model: str | None,
    recipe: str | None,
    changes: tuple[str, ...],
    ram: int | None,
    device: str,
    disk: int | None,
    revision: str | None,
    dtype: str | None,
    quantize: str | None,
    screen: bool,
    adapter: tuple[str, ...],
    slots: int | None,
    kept: int | None,
    prefix_cache: int | None,
    no_prefix_cache: bool,
    read_rate: int | None,
    product_rate: float | None,
    measure: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Divide memory among weights, prefix cache and live conversations, and say how fast they will
    run.

    A conversation's state has a fixed size, so this is arithmetic; no weights are read. The numbers
    for weights and states are exact; those for the process and for values inside a call are upper
    estimates. Two speeds are given: the most that memory and processor allow, and what to expect on
    this machine, from a short trial of the model's first layers with random weights.
    `griffin bench` measures the model itself.

    With --train: the bytes of weights, gradient, moments and activations of a run, and the most
    tokens/s that matrix products allow.

    Write sizes as 16G (2^30), 16GB (10^9), 500M or in bytes.
    """
    if recipe is not None:
        given = click.get_current_context()
        others = [
            f"--{p.replace('_', '-')}"
            for p in ("model", *_SERVING)
            if given.get_parameter_source(p) is click.core.ParameterSource.COMMANDLINE
        ]
        if others:
            raise click.UsageError(f"--train stands alone, without {', '.join(others)}")
        from griffin.train.bundled import find_recipe
        from griffin.train.recipe import load_recipe

        set_threads(threads)
        loaded = load_recipe(find_recipe(recipe), changes)
        there = memory_bytes() if ram is None else ram
        print_train_plan(recipe, loaded, there, product_rate, measure, as_json)
        return
    place = device if ram is not None else place_of(device)
    on_gpu = place != "cpu"
    memory = f"{place}, which is not looked at" if on_gpu else "this machine"
    if on_gpu and ram is None:
        memory, ram = memory_of(place).name, memory_of(place).nbytes
    for missing, value in (("--model", model), ("--ram", ram)):
        if value is None:
            raise click.UsageError(f"Missing option '{missing}'; or plan a run with --train RECIPE")
    assert model is not None and ram is not None
    if changes:
        raise click.UsageError("--set changes a recipe: give --train RECIPE")
    from griffin.capacity import plan
    from griffin.cli.shared.adapters import adapter_facts
    from griffin.cli.shared.spec import spec_of
    from griffin.engine.device_part import STATES
    from griffin.engine.devices import default_chunk
    from griffin.loading import named_device
    from griffin.model.step_kernels import why_unfit

    if ram < 1 << 20:
        raise click.UsageError(f"--ram {ram} is {ram} bytes; did you mean {ram}G?")
    if no_prefix_cache and prefix_cache is not None:
        raise click.UsageError("give --prefix-cache or --no-prefix-cache, not both")
    if product_rate is not None and read_rate is None:
        raise click.UsageError(
            "--product-rate goes with --read-rate; without both, both are measured"
        )
    source = ModelSource(
        model=model,
        revision=revision,
        dtype=dtype,
        quantize=quantize,
        screen=screen,
        adapter=adapter,
    )
    planned_for = named_device(place)
    spec = spec_of(source, place)
    added = sum(one["bytes"] for one in adapter_facts(source.adapters, spec.config, spec.dtype))
    if prefix_cache is None:
        prefix_cache = 0 if no_prefix_cache else min(_CACHE, ram // 8)

    def planned(format: str | None) -> Capacity:
        return plan(
            spec.config,
            ram_bytes=ram,
            dtype=spec.dtype,
            format=format,
            head=spec.own_head(format),
            screen=spec.screen,
            slots=slots,
            kept=kept,
            chunk=default_chunk(planned_for),
            prefix_cache_bytes=0 if on_gpu else prefix_cache,  # there in the machine's memory
            device_states=STATES if on_gpu and prefix_cache else 0,
            weight_bytes=spec.weight_bytes(format) + added,
            graphs=on_gpu and why_unfit(spec.config, spec.dtype, bool(adapter)) is None,
        )

    try:
        made = planned(spec.format)
    except ValueError as error:
        raise ValueError(f"{error}{_smaller(planned, spec.format)}") from None
    rates: dict[str, float] = {}
    expected: dict[str, float] | None = None
    if read_rate is not None:
        rates = {"read": float(read_rate)} | (
            {} if product_rate is None else {"product": product_rate}
        )
    elif measure and not on_gpu:
        set_threads(threads)
        rates = measured_rates(spec.config, spec.dtype, spec.format)
        expected = expected_speeds(made)
    facts = as_dict(made, spec.name, disk, rates) | {
        "expected_tokens_per_second": expected,
        "adapter_bytes": added,
        "memory": memory,
        "prefix_cache_memory": "this machine",
    }
    if on_gpu:
        held = prefix_cache_tokens(spec.config, spec.dtype, prefix_cache)
        facts |= {"prefix_cache_bytes": prefix_cache, "prefix_cache_tokens": held}
    if as_json:
        click.echo(json.dumps(facts))
    else:
        print_memory_plan(facts)


def _smaller(planned: Callable[[str], Capacity], format: str | None) -> str:
    """Return which formats would fit, for the end of an error."""
    fits: list[str] = []
    for smaller in ("int8", "int4"):
        with suppress(ValueError):
            planned(smaller)
            fits.append(f"--quantize {smaller}")
    fits = [] if format in ("int8", "int4") and f"--quantize {format}" in fits else fits
    return f"; {' or '.join(fits)} would fit" if fits else ""


def measured_rates(
    config: GriffinConfig, dtype: torch.dtype, format: str | None
) -> dict[str, float]:
    """Measure bytes a second of reading and operations a second of products, with torch's threads.

    Products are torch's at the shape of the model's largest matrix with 64 rows, in the fastest
    type that serves the weights', as in `griffin bench`.
    """
    import torch

    from griffin.bench.rates import SERVING, Reader, matrix_rate
    from griffin.ops.packed_linear import get_layout

    integers = format is not None and get_layout(format).whole_numbers
    kind = "int8" if integers else str(dtype).removeprefix("torch.")
    read = Reader(_BUFFER).rate(torch.get_num_threads(), _SECONDS)
    shape = (config.mlp_width, config.width, 1)
    # A type that nothing was measured for (float64) serves itself.
    product = max(matrix_rate([shape], 64, t, _SECONDS) for t in SERVING.get(kind, (kind,)))
    return {"read": read, "product": product}


def expected_speeds(made: Capacity) -> dict[str, float]:
    """Return the tokens a second to expect of sequences with full windows, after a short trial."""
    from griffin.cli.shared.trial import MOST_ROWS, Trial

    trial = Trial(made.config, made.dtype, made.format)
    window = made.config.attention_window_size
    return {
        str(rows): made.tokens_per_second(trial.rate(tried := min(rows, MOST_ROWS)), tried, window)
        for rows in counts(made)
    }


def counts(made: Capacity) -> list[int]:
    """Return for how many sequences at once speeds are told: one, eight and all."""
    return sorted({1, min(8, made.slots), made.slots})


def as_dict(
    made: Capacity, name: str, disk: int | None, rates: Mapping[str, float]
) -> dict[str, Any]:
    """Return a plan as plain values for JSON; speeds are None without rates."""
    from griffin.capacity import parts

    _, token = parts(made.config, made.dtype)
    turn_fixed, turn_token = made.turn_bytes
    window = made.config.attention_window_size if token else 0
    speeds: dict[str, float] | None = None
    if rates:
        product = rates.get("product")
        speeds = {
            # For one sequence memory alone is the bound: products of a matrix and a vector.
            str(rows): made.tokens_per_second(
                rates["read"], rows, window, product if rows > 1 else None
            )
            for rows in counts(made)
        }
    return {
        "model": name,
        "format": made.format,
        "dtype": str(made.dtype).removeprefix("torch."),
        "ram_bytes": made.ram_bytes,
        "weight_bytes": made.weight_bytes,
        "screen_bytes": made.screen_bytes,
        "runtime_bytes": made.runtime_bytes,
        "working_bytes": made.working_bytes,
        "graph_bytes": made.graph_bytes,
        "device_cache_bytes": made.device_cache_bytes,
        "prefix_cache_bytes": made.prefix_cache_bytes,
        "prefix_cache_tokens": prefix_cache_tokens(
            made.config, made.dtype, made.prefix_cache_bytes
        ),
        "slot_bytes": made.slot_bytes,
        "slots": made.slots,
        "kept": made.kept,
        "live_bytes": made.live_bytes,
        "spare_bytes": made.spare_bytes,
        "session_bytes": made.session_bytes,
        "turn_bytes": {"fixed": turn_fixed, "per_token": turn_token},
        "disk_bytes": disk,
        "sessions_on_disk": None if disk is None else made.sessions_on_disk(disk),
        "sessions_per_gigabyte": made.sessions_on_disk(),
        "read_bytes_per_second": rates.get("read"),
        "operations_per_second": rates.get("product"),
        "context": window,
        "limit_tokens_per_second": speeds,
    }


def prefix_cache_tokens(config: GriffinConfig, dtype: torch.dtype, nbytes: int) -> int:
    """Return about how many tokens of different beginnings a prefix cache holds."""
    from griffin.capacity import parts
    from griffin.engine.prefix_cache import EVERY

    fixed, token = parts(config, dtype)
    return nbytes * EVERY // (fixed + token * EVERY)
