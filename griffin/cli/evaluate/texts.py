"""`griffin evaluate --text`: bits a byte of texts, each as a whole or all by position."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from griffin.cli.evaluate.printing import counted, print_table
from griffin.cli.shared.model_source import ModelSource

if TYPE_CHECKING:
    from griffin.evaluate.positions import PositionSpan


def evaluate_texts(
    files: Sequence[Path],
    source: ModelSource,
    *,
    by_position: bool,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Read texts from end to end and print what a byte of them costs."""
    from griffin.evaluate.positions import doublings, measure_positions

    texts = {str(file): _read(file) for file in files}
    llm = source.llm()
    ids = {
        name: each for name, text in texts.items() if len(each := llm.tokenizer.encode(text)) > 1
    }
    if not ids:
        raise click.UsageError(f"there is nothing to read in {', '.join(texts)}")
    with counted("reading", sum(map(len, ids.values()))) as advance:
        if by_position:
            edges = doublings(max(map(len, ids.values())))
            spans = measure_positions(llm, ids.values(), edges, advance=advance)
            names = [f"{span.begin:,} to {span.end - 1:,}" for span in spans]
        else:
            spans = [
                measure_positions(llm, [each], [1], advance=advance)[0] for each in ids.values()
            ]
            names = list(ids)
    window = llm.model.config.attention_window_size
    if as_json:
        rows = [{"of": name, **_values(span)} for name, span in zip(names, spans, strict=True)]
        click.echo(json.dumps({"model": source.model, "window": window, "spans": rows}))
    else:
        head = (
            "positions" if by_position else "text",
            "tokens",
            "bytes",
            "nats/token",
            "bits/byte",
        )
        print_table(head, [(name, *_cells(span)) for name, span in zip(names, spans, strict=True)])
        if by_position:
            click.echo(f"{len(ids)} texts; attention sees {window:,} tokens back")
    if plot is not None:
        from griffin.evaluate.drawing import draw_positions

        draw_positions({source.model: spans}, {source.model: window}, plot)


def _values(span: PositionSpan) -> dict[str, float]:
    return asdict(span) | {
        "nats_per_token": span.nats_per_token,
        "bits_per_byte": span.bits_per_byte,
    }


def _cells(span: PositionSpan) -> tuple[str, ...]:
    rates = f"{span.nats_per_token:.4f}", f"{span.bits_per_byte:.4f}"
    return f"{span.tokens:,}", f"{span.bytes:,}", *rates


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{file} is no UTF-8 text: byte {error.start}") from None
