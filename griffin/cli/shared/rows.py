"""Rows of a training run, printed as the model will see them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from griffin.train.recipe import Recipe


def show_rows(plan: Recipe, folder: Path, count: int, skip_bad: bool, as_json: bool) -> None:
    """Prepare a run's data in its folder and print its first rows, what is counted in green."""
    import torch
    from rich.console import Console

    from griffin.train.data.show import as_text, documents_of_row, rows_of_run
    from griffin.train.report import Reporter
    from griffin.train.stopping import StopRequest

    reporter = Reporter()
    stop = StopRequest(reporter.say)
    with stop.heard():
        workers = torch.get_num_threads()
        rows, tokenizer = rows_of_run(
            plan, folder, reporter, stop.check, workers=workers, skip_bad=skip_bad
        )
    console = Console(highlight=False, soft_wrap=True)
    for row in range(count):
        documents = documents_of_row(rows, row, tokenizer)
        if as_json:
            said = [document.as_dict() for document in documents]
            click.echo(json.dumps({"row": row, "documents": said}))
        else:
            console.print(as_text(row, documents, console.is_terminal))
