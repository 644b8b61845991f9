"""`griffin bench draft`: what reading guesses ahead saves, text by text."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

_TEXT = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("draft")
@click.option("--model", default="nano", show_default=True, help="As griffin generate takes it.")
@click.option("--quantize", metavar="FORMAT", help="Round the weights: int8 or int4.")
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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def draft(
    model: str,
    quantize: str | None,
    texts: tuple[Path, ...],
    prompt: int,
    tokens: int,
    rows: tuple[int, ...],
    as_json: bool,
) -> None:
    """Measure calls of several tokens, and replay texts with and without drafts.

    A text is read as if the model had chosen it, so that acceptance is the text's own and the
    weights do not matter. "again" is a given text whose prediction is itself: a file written anew.
    """
    import torch

    import griffin
    from griffin.bench.draft import Replay, replay
    from griffin.bench.texts import Excerpt, excerpts
    from griffin.engine.draft_length import costs_of

    more: dict[str, Any] = {} if quantize is None else {"quantize": quantize}
    llm = griffin.load(model, **more)
    encode = llm.tokenizer.encode
    read = {path.name: Excerpt("", path.read_text("utf-8")) for path in texts} or excerpts()
    costs = costs_of(llm.model)
    cost = {size: costs.of(size) for size in costs.seconds}  # before the replays correct it
    replays: list[Replay] = []
    for count in rows:

        def measure(name: str, ids: list[int], begun: int, count: int = count, **how: Any) -> None:
            click.echo(f"replaying {name}, {count} at once", err=True)
            replays.append(replay(llm.model, name, ids, begun, rows=count, **how))

        for name, excerpt in read.items():
            before = encode(excerpt.prompt) if excerpt.prompt else []
            ids = before + encode(excerpt.answer, bos=not before)[:tokens]
            measure(name, ids, len(before) or prompt)
            if texts:
                measure(f"{name} again", ids, prompt, prediction=ids[prompt:])
        if not texts:
            drawn = torch.Generator().manual_seed(0)
            ids = torch.randint(llm.tokenizer.vocab_size, (tokens,), generator=drawn).tolist()
            measure("random tokens", ids, prompt)
    if as_json:
        told = [asdict(each) | {"faster": each.faster} for each in replays]
        click.echo(json.dumps({"model": model, "cost": cost, "texts": told}))
        return
    click.echo("tokens of a call, and its time beside one token's:")
    click.echo("  ".join(f"{size}: {times:.2f}" for size, times in cost.items()))
    for each in replays:
        click.echo(
            f"{each.name}, {each.rows} at once: {each.faster:.2f} times as fast;"
            f" {each.tokens * each.rows} tokens in {each.calls} calls, {each.accepted} of"
            f" {each.proposed} drafts were right"
        )
