"""`griffin evaluate --long`: what a model recalls of long texts that are made up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from griffin.cli.evaluate.printing import counted, print_table
from griffin.cli.shared.model_source import ModelSource


class Lengths(click.ParamType):
    """Numbers of tokens with commas between; 4k is 4 x 1,024."""

    name = "lengths"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        found = []
        for word in str(value).split(","):
            digits = word.strip().lower().removesuffix("k")
            thousand = 1024 if word.strip().lower().endswith("k") else 1
            if not (digits.isascii() and digits.isdigit() and 0 < int(digits) * thousand < 1 << 31):
                self.fail(
                    f"{word.strip()!r} is no length; write tokens, as 1k,4k,32768", param, ctx
                )
            found.append(int(digits) * thousand)
        return tuple(found)


def evaluate_recall(
    tasks: str,
    source: ModelSource,
    *,
    lengths: Sequence[int],
    questions: int,
    prose: Path | None,
    seed: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Ask about texts of each length, and print the share of right answers."""
    from griffin.evaluate.recall import check_task, sentences_of
    from griffin.evaluate.recalled import measure_recall

    names = [name.strip() for name in tasks.split(",")]
    try:
        for name in names:
            check_task(name)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    sentences = [] if prose is None else sentences_of(prose.read_text(encoding="utf-8"))
    llm = source.llm()
    with counted("asking", sum(lengths) * len(names) * questions) as advance:
        found = list(
            measure_recall(
                llm,
                names,
                lengths,
                questions=questions,
                seed=seed,
                prose=sentences,
                advance=advance,
            )
        )
    window = llm.model.config.attention_window_size
    if as_json:
        results = [asdict(each) for each in found]
        click.echo(json.dumps({"model": source.model, "window": window, "results": results}))
    else:
        head = ("right answers of", *(f"{length:,}" for length in lengths))
        cells = {
            (each.task, each.tokens): f"{each.exact:.0%} ± {each.stderr:.0%}" for each in found
        }
        print_table(head, [(name, *(cells[name, length] for length in lengths)) for name in names])
        click.echo(f"of {questions} questions each; attention sees {window:,} tokens back")
    if plot is not None:
        from griffin.evaluate.drawing import draw_recall

        draw_recall({source.model: found}, {source.model: window}, plot)
