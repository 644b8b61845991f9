"""`griffin bench draft`: what reading guesses ahead saves, text by text."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from griffin.bench.draft import Replay

_TEXT = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("draft")
@click.option("--model", default="nano", show_default=True, help="As griffin generate takes it.")
@click.option("--quantize", metavar="FORMAT", help="Round the weights: int8 or int4.")
@click.option(
    "--beside",
    metavar="MODEL",
    help="Without drafts this one reads, of the same vocabulary: what both save together.",
)
@click.option(
    "--text",
    "texts",
    type=_TEXT,
    multiple=True,
    metavar="FILE",
    help="A text to replay; repeatable. [default: English, JSON, Python, an edit, random tokens]",
)
@click.option(
    "--prompt", type=click.IntRange(1), default=64, show_default=True, help="Its first tokens."
)
@click.option(
    "--tokens", type=click.IntRange(4), default=512, show_default=True, help="Of each at most."
)
@click.option(
    "--rows",
    type=click.IntRange(1),
    multiple=True,
    default=(1, 8),
    show_default=True,
    help="At once; repeatable.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    help="Take fewer tokens of each, so that it is done in about so long from its start.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def draft(
    model: str,
    quantize: str | None,
    beside: str | None,
    texts: tuple[Path, ...],
    prompt: int,
    tokens: int,
    rows: tuple[int, ...],
    minutes: float | None,
    as_json: bool,
) -> None:
    """Measure calls of several tokens, and replay texts with and without drafts.

    A text is read as if the model had chosen it, so that acceptance is the text's own and the
    weights do not matter. "again" is a given text whose prediction is itself: a file written anew.
    """
    import griffin
    from griffin.bench import machine
    from griffin.bench.draft import recordings, replay, tokens_within
    from griffin.bench.ours import format_of
    from griffin.engine.draft_length import costs_of

    begun = time.monotonic()
    more: dict[str, Any] = {} if quantize is None else {"quantize": quantize}
    llm = griffin.load(model, **more)
    other = None if beside is None else griffin.load(beside).model
    if other is not None and other.config.vocab_size != llm.model.config.vocab_size:
        raise click.UsageError(
            f"{beside} has a vocabulary of {other.config.vocab_size:,}, {model} one of"
            f" {llm.model.config.vocab_size:,}; --beside takes a model of the same"
        )
    costs = costs_of(llm.model)
    cost = {size: costs.of(size) for size in costs.seconds}  # before the replays correct it
    words = llm.tokenizer
    given = recordings(words.encode, words.vocab_size, prompt=prompt, tokens=tokens, files=texts)
    if minutes is not None:
        left = 60 * minutes - (time.monotonic() - begun)
        most = tokens_within(left, given, rows, costs)
        given = [text.cut(most) for text in given]
    replays: list[Replay] = []
    for count in rows:
        for text in given:
            click.echo(f"replaying {text.name}, {count} at once", err=True)
            replays.append(replay(llm.model, text, count, beside=other))
    if as_json:
        told = [
            asdict(each)
            | {"faster": each.faster}
            | dict(zip(("plain_rate", "drafted_rate"), each.tokens_per_second, strict=True))
            for each in replays
        ]
        where = {
            "command": machine.command(),
            "commit": machine.commit(),
            "machine": machine.describe(),
            "model": model,
            "format": format_of(llm.model),
            "beside": None if other is None else format_of(other),
        }
        click.echo(json.dumps(where | {"cost": cost, "texts": told}))
        return
    click.echo("tokens of a call, and its time beside one token's:")
    click.echo("  ".join(f"{size}: {times:.2f}" for size, times in cost.items()) + "\n")
    _print(replays)


def _print(replays: Sequence[Replay]) -> None:
    wide = max(len(each.name) for each in replays)
    heads = ("rows", "tokens", "calls", "right", "of drafts", "tokens/s", "with drafts", "times")
    click.echo(" " * wide + "".join(f"{head:>13}" for head in heads))
    for each in replays:
        counts = each.rows, each.tokens, each.calls, each.accepted, each.proposed
        rates = (*each.tokens_per_second, each.faster)
        cells = [f"{count:>13,}" for count in counts] + [f"{rate:>13,.2f}" for rate in rates]
        click.echo(f"{each.name:<{wide}}{''.join(cells)}")
