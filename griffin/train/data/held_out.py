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
    """Hold held-out documents.

    texts: what is counted in each, as it is written. overlap: how far they stand in training.
    """

    documents: list[Encoded]
    texts: list[bytes]
    overlap: Overlap


def held_out_of_run(data: RunData) -> HeldOut:
    """Return what a run has held out, as it was encoded for it."""
    stores = [source.held_out for source in data.sources]
    documents = [store.encoded(place) for store in stores for place in range(len(store.paths))]
    texts = [data.tokenizer.decode(d.ids[d.counted].tolist()).encode() for d in documents]
    return HeldOut(documents, texts, data.overlap)


def held_out_of_recipe(recipe: Recipe, tokenizer: Tokenizer) -> HeldOut:
    """Read a recipe's sources, and encode what it holds out with any tokenizer.

    What cannot be read or encoded is passed over. Raises ValueError as `survey` does.
    """
    sources, data = open_sources(recipe.data, recipe.folder), recipe.data
    encoder, documents, texts = Encoder(tokenizer), list[Encoded](), list[bytes]()
    with tempfile.TemporaryDirectory() as folder:
        most = data.max_document_bytes
        seen = survey(sources, data.held_out, most, Path(folder), skip_bad=True)
        for document in seen.documents(sources, held=True):
            with contextlib.suppress(ValueError):
                documents.append(encoder.encode(document.example))
                texts.append(learned_words(document.example).encode())
    return HeldOut(documents, texts, seen.overlap)
