"""How a model's memory and speed are printed, before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from griffin.cli.shared.sizes import binary


def print_memory_plan(facts: Mapping[str, Any]) -> None:
    """Print what `griffin plan` found for a model that is served, its parts and its speeds."""

    def row(what: str, count: int, note: str = "") -> None:
        click.echo(f"{what:<16}{count:>20,}  {binary(count):>12}  {note}".rstrip())

    slots, kept, each = facts["slots"], facts["kept"], facts["slot_bytes"]
    layout = "plain" if facts["format"] is None else facts["format"]
    click.echo(f"{facts['model']}: {layout} weights, values in {facts['dtype']}\n")
    on_gpu = facts["memory"] != facts["prefix_cache_memory"]
    whose = f"  of {facts['memory']}" if on_gpu else ""
    click.echo(f"{'memory':<16}{'bytes':>20}{whose}")
    shares = {"adapters": facts["adapter_bytes"], "a preview of the head": facts["screen_bytes"]}
    told = ", ".join(f"{nbytes:,} of them {what}" for what, nbytes in shares.items() if nbytes)
    row("weights", facts["weight_bytes"], told)
    row("process", facts["runtime_bytes"], "Python and torch (estimate)")
    row("inside a call", facts["working_bytes"], "values and logits (estimate)")
    if facts["graph_bytes"]:
        row("graphs", facts["graph_bytes"], "logits, and a step's values (estimate)")
    row(
        "prefix cache",
        facts["prefix_cache_bytes"],
        f"about {facts['prefix_cache_tokens']:,} tokens"
        + ("; in this machine's memory, not counted here" if on_gpu else ""),
    )
    if on_gpu:
        row("of it here", facts["device_cache_bytes"], "the states found last, besides")
    row("a slot", each, "a live conversation, its window full")
    row(f"{slots:,} slots", slots * each, "answered at the same time")
    row(f"{kept:,} kept", kept * each, "paused, or waiting forks")
    row("spare", facts["spare_bytes"])
    row("together", facts["ram_bytes"])
    click.echo()
    if facts["disk_bytes"] is None:
        saved = f"{facts['sessions_per_gigabyte']:,} saved conversations on a gigabyte"
    else:
        saved = (
            f"{facts['sessions_on_disk']:,} saved conversations on {facts['disk_bytes']:,} bytes"
        )
    turn = facts["turn_bytes"]
    click.echo(f"disk            {saved}, {facts['session_bytes']:,} bytes each at most;")
    click.echo(
        f"                a turn to undo: {turn['fixed']:,} bytes and {turn['per_token']:,} a token"
    )
    if (speeds := facts["limit_tokens_per_second"]) is None:
        click.echo("speed           not known; give --read-rate, or let it be measured")
        return
    rates = f"{facts['read_bytes_per_second'] / 1e9:,.1f} GB/s"
    if facts["operations_per_second"] is not None:
        rates += f" and {facts['operations_per_second'] / 1e9:,.0f} billion operations/s"
    after = f" after {facts['context']:,} tokens" if facts["context"] else ""
    expected = facts["expected_tokens_per_second"]
    if expected is None:
        click.echo(
            f"speed           at most, with {rates}{after} (a bound; what is reached is less):"
        )
    else:
        click.echo(f"speed           expected{after}, and the most that {rates} allow:")
    for rows, speed in speeds.items():
        how = "at once" if int(rows) > 1 else "alone"
        told = f"{speed:>14,.1f} tokens/s together"
        if expected is not None:
            told = f"{expected[rows]:>14,.1f} tokens/s together, at most {speed:,.1f}"
        click.echo(f"{int(rows):>16,} {how:<8}{told}")
    if facts["screen_bytes"]:
        click.echo(f"{'':16}of greedy choices, min_p or a small top_k; other draws read more")
