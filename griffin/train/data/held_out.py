"""The held-out documents of a recipe or of a run, as they are measured on."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from griffin.text import Tokenizer
from griffin.train.data.encode import Encoded, Encoder
from griffin.train.data.example import learned_words
from griffin.train.data.prepare import RunData
from griffin.train.data.source import open_sources
from griffin.train.data.split import Overlap
from griffin.train.data.survey import survey
from griffin.train.recipe import Recipe


@dataclass(frozen=True)
class HeldOut:
    """Hold held-out documents, by source in the recipe's order.

    texts: what is counted in each, as it is written. overlap: how far they stand in training.
    """

    documents: dict[str, list[Encoded]]
    texts: dict[str, list[bytes]]
    overlap: Overlap


def held_out_of_run(data: RunData) -> HeldOut:
    """Return what a run has held out, as it was encoded for it."""
    stores = {source.name: source.held_out for source in data.sources}
    documents = {
        name: [store.encoded(place) for place in range(len(store.paths))]
        for name, store in stores.items()
    }
    texts = {
        name: [data.tokenizer.decode(d.ids[d.counted].tolist()).encode() for d in of_source]
        for name, of_source in documents.items()
    }
    return HeldOut(documents, texts, data.overlap)


def held_out_of_recipe(recipe: Recipe, tokenizer: Tokenizer) -> HeldOut:
    """Read a recipe's sources, and encode what it holds out with any tokenizer.

    What cannot be read or encoded is passed over. Raises ValueError as `survey` does.
    """
    sources, data = open_sources(recipe.data, recipe.folder), recipe.data
    names = [source.recipe.name for source in sources]
    documents: dict[str, list[Encoded]] = {name: [] for name in names}
    texts: dict[str, list[bytes]] = {name: [] for name in names}
    encoder, most = Encoder(tokenizer), data.max_document_bytes
    with tempfile.TemporaryDirectory() as folder:
        seen = survey(sources, data.held_out, most, Path(folder), skip_bad=True)
        for source, document in seen.documents(sources, held=True):
            with contextlib.suppress(ValueError):
                documents[names[source]].append(encoder.encode(document.example))
                texts[names[source]].append(learned_words(document.example).encode())
    return HeldOut(documents, texts, seen.overlap)
