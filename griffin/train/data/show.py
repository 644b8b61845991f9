"""Rows as the model will see them: documents, their borders, and which tokens are counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from griffin.text import Tokenizer
from griffin.train.data.mixture import Mixture
from griffin.train.data.prepare import prepare_data
from griffin.train.data.rows import Packer
from griffin.train.folder import RunFolder
from griffin.train.recipe import Recipe
from griffin.train.report import Reporter

_MARKS = ("⟦", "⟧")  # around what is counted where there is no colour


@dataclass(frozen=True)
class ShownDocument:
    """A document's part of a row.

    name: of the document; "" is padding. first: its token that the part begins with. tokens,
    counted: how many there are, and how many of them are targets. spans: text, and whether it is
    counted. The last token is a target alone; the row does not read it.
    """

    name: str
    first: int
    tokens: int
    counted: int
    spans: list[tuple[str, bool]]

    def as_dict(self) -> dict[str, Any]:
        spans = [{"text": text, "counted": counted} for text, counted in self.spans]
        return {"document": self.name, "first_token": self.first, "tokens": self.tokens,
                "counted": self.counted, "spans": spans}  # fmt: skip


def rows_of_run(
    recipe: Recipe,
    out: Path,
    reporter: Reporter,
    check: Callable[[], None],
    *,
    workers: int = 1,
    skip_bad: bool = False,
) -> tuple[Mixture, Tokenizer]:
    """Prepare a run's data in its folder, where training finds it; return its rows."""
    folder = RunFolder(out, say=reporter.say)
    try:
        with folder.claimed(recipe) as claim:
            data = prepare_data(
                recipe, out, reporter, claim, check, workers=workers, skip_bad=skip_bad
            )
            stores = {source.name: source.train for source in data.sources}
            return Mixture.of(recipe, stores)[0], data.tokenizer
    finally:
        folder.close()


def documents_of_row(rows: Packer | Mixture, row: int, tokenizer: Tokenizer) -> list[ShownDocument]:
    """Return what is in a row, document by document, padding last."""
    batch = rows.batch(row, 1)
    ids, targets, mask = (part[0].numpy() for part in (batch.tokens, batch.targets, batch.mask))
    begins = sorted({0, *np.flatnonzero(batch.segment_pos[0].numpy() == 0).tolist()})
    found = []
    for (start, stop), place in zip_longest(pairwise([*begins, len(ids)]), rows.documents(row)):
        name, first = place or ("", 0)
        tokens = [*ids[start:stop].tolist(), int(targets[stop - 1])]
        counted = [False, *mask[start:stop].tolist()]
        spans = list(spans_of(tokens, counted, tokenizer)) if name else []
        found.append(ShownDocument(name, first, len(tokens), sum(counted), spans))
    return found


def as_text(row: int, documents: list[ShownDocument], colour: bool) -> Text:
    """Return a row for people; what is counted is green, or between marks."""
    text = Text(f"row {row}\n", style="bold")
    for document in documents:
        name = document.name or "padding"
        where = f" from token {document.first}" if document.first else ""
        head = f"── {name}{where}: {document.tokens} tokens, {document.counted} counted\n"
        text.append(head, style="dim not bold")
        for span, counted in document.spans:
            if counted and not colour:
                span = f"{_MARKS[0]}{span}{_MARKS[1]}"
            text.append(span, style="green not bold" if counted else "not bold")
        text.append("\n")
    return text


def spans_of(
    tokens: list[int], counted: list[bool], tokenizer: Tokenizer
) -> Iterator[tuple[str, bool]]:
    """Yield text that is counted and text that is not in turn; control tokens by their names."""
    edges = [0, *(n for n in range(1, len(counted)) if counted[n] != counted[n - 1]), len(counted)]
    for start, stop in pairwise(edges):
        yield tokenizer.decode(tokens[start:stop], skip_control=False), counted[start]
