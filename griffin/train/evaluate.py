"""Held-out documents in bits per byte: a model's, and those of gzip and xz on the same files."""

from __future__ import annotations

import gzip
import lzma
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from griffin.model import Griffin
from griffin.train.data.corpus import TextFile
from griffin.train.data.rows import TrainBatch, pad_documents
from griffin.train.data.store import TokenStore
from griffin.train.loss import chunked_cross_entropy, row_nats
from griffin.train.objective import Objective
from griffin.train.scale.ranks import Ranks


@torch.no_grad()
def bits_in_rows(
    model: Griffin | Objective,
    documents: Iterable[np.ndarray],
    length: int,
    rows: int = 16,
    ranks: Ranks | None = None,
) -> float:
    """Return the bits a model needs for documents cut into rows of `length`, each read afresh.

    This is how training reads. documents: ids from <bos> to <eos>; every token but <bos> is
    predicted. rows: how many go through the model at a time. A model's products are in float32, an
    Objective's in the type it has; one that is split over ranks is read on all of them, each reader
    with rows of its own, and each rank returns the bits of all.
    """
    ranks = ranks or Ranks()
    batch, nats = pad_documents(documents, length), 0.0
    for at in range(0, len(batch.tokens), rows * ranks.readers):
        first = at + rows * ranks.reader
        # Split weights are gathered by all ranks at once, those included that have no rows left.
        empty = first >= len(batch.tokens)
        part = slice(0, 1) if empty else slice(first, first + rows)
        found = float(_nats(model, batch, part))
        nats += 0.0 if empty else found
    return ranks.sum(nats)[0] / math.log(2)


@torch.no_grad()
def bits_in_streams(
    model: Griffin,
    documents: Iterable[np.ndarray],
    length: int,
    advance: Callable[[int], None] | None = None,
) -> float:
    """Return the bits a model needs for documents read from end to end, in float32.

    This is how generation reads: the state goes from piece to piece of `length` tokens.
    advance: called with the number of tokens after each piece.
    """
    cap = model.config.logits_soft_cap
    nats = 0.0
    for ids in documents:
        state = None
        document = torch.from_numpy(ids).to(model.device)
        for at in range(0, len(ids) - 1, length):
            targets = document[None, at + 1 : at + 1 + length]
            tokens = document[None, at : at + targets.shape[1]]
            hidden, state = model.trunk(tokens, state, donate=state is not None)
            nats += float(
                chunked_cross_entropy(hidden, model.head_weight, targets, soft_cap=cap)[0]
            )
            if advance is not None:
                advance(targets.shape[1])
    return nats / math.log(2)


def validation_documents(store: TokenStore, limit: int) -> tuple[list[np.ndarray], int]:
    """Return whole documents with at most `limit` tokens together, and their bytes.

    They are taken in the store's order, those that no longer fit passed over; if none fits, it is
    the shortest alone.
    """
    counts = np.diff(store.starts)
    chosen, total = [], 0
    for index, count in enumerate(counts):
        if total + count <= limit:
            chosen.append(index)
            total += int(count)
    chosen = chosen or [int(counts.argmin())]
    return [store.document(index) for index in chosen], sum(store.sizes[index] for index in chosen)


def compressors(documents: Sequence[TextFile]) -> dict[str, dict[str, float]]:
    """Return the bits per byte of gzip -9 and xz -9e on documents: each file alone, and all in one
    stream."""
    texts = [document.read_bytes() for document in documents]
    whole, size = b"".join(texts), sum(map(len, texts))
    packers: dict[str, Callable[[bytes], bytes]] = {
        "gzip -9": lambda data: gzip.compress(data, 9, mtime=0),
        "xz -9e": lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
    }
    return {
        name: {
            "each file": sum(len(pack(text)) for text in texts) * 8 / size,
            "one stream": len(pack(whole)) * 8 / size,
        }
        for name, pack in packers.items()
    }


def _nats(model: Griffin | Objective, batch: TrainBatch, part: slice) -> torch.Tensor:
    if isinstance(model, Griffin):
        return row_nats(model, batch.rows(part, model.device))[0]
    rows = batch.rows(part, model.griffin.device)
    return model(rows.tokens, rows.targets, rows.segment_pos, rows.mask)[0]
