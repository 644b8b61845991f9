"""Held-out documents in bits per byte: a model's, and those of gzip and xz on the same files."""

from __future__ import annotations

import gzip
import lzma
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch

from griffin.model import Griffin
from griffin.train.data.encode import Encoded
from griffin.train.data.rows import TrainBatch, pad_documents
from griffin.train.data.store import TokenStore
from griffin.train.loss import chunked_cross_entropy, row_nats
from griffin.train.objective import Objective
from griffin.train.scale.ranks import Ranks


@torch.no_grad()
def bits_in_rows(
    model: Griffin | Objective,
    documents: Iterable[Encoded],
    length: int,
    rows: int,
    ranks: Ranks | None = None,
    check: Callable[[], object] = lambda: None,
) -> float:
    """Return the bits a model needs for documents cut into rows of `length`, each read afresh.

    This is how training reads. Of the documents what is counted is predicted. rows: how many go
    through the model at a time. A model's products are in float32, an Objective's in the type it
    has; one that is split over ranks is read on all of them, each reader with rows of its own, and
    each rank returns the bits of all. check: called before each of them; what it raises ends the
    reading.
    """
    ranks = ranks or Ranks()
    batch, nats = pad_documents(documents, length), 0.0
    for at in range(0, len(batch.tokens), rows * ranks.readers):
        check()
        first = at + rows * ranks.reader
        # Split weights are gathered by all ranks at once, those included that have no rows left.
        empty = first >= len(batch.tokens)
        part = slice(0, 1) if empty else slice(first, first + rows)
        found = float(_nats(model, batch, part, split=ranks.together > 1))
        nats += 0.0 if empty else found
    return ranks.sum(nats)[0] / math.log(2)


@torch.no_grad()
def bits_in_streams(
    model: Griffin,
    documents: Iterable[Encoded],
    length: int,
    advance: Callable[[int], None] | None = None,
) -> float:
    """Return the bits a model needs for documents read from end to end, in float32.

    What is counted is predicted. This is how generation reads: the state goes from piece to piece
    of `length` tokens.
    advance: called with the number of tokens after each piece; what it raises ends the reading.
    """
    cap = model.config.logits_soft_cap
    nats = 0.0
    for encoded in documents:
        state = None
        document = torch.from_numpy(encoded.ids).to(model.device)
        counted = torch.from_numpy(encoded.counted).to(model.device)
        for at in range(0, len(document) - 1, length):
            targets = document[None, at + 1 : at + 1 + length]
            mask = counted[None, at + 1 : at + 1 + length]
            tokens = document[None, at : at + targets.shape[1]]
            hidden, state = model.trunk(tokens, state, donate=state is not None)
            nats += float(chunked_cross_entropy(hidden, model.head, targets, mask, cap)[0])
            if advance is not None:
                advance(targets.shape[1])
    return nats / math.log(2)


def validation_documents(
    stores: Mapping[str, TokenStore], limit: int
) -> dict[str, tuple[list[Encoded], int]]:
    """Return whole documents with at most `limit` tokens together, and their bytes, by source.

    Each store that has documents gives its share of the limit. They are taken in its order, those
    that no longer fit passed over; if none fits, it is the shortest alone.
    """
    chosen_of = dict[str, tuple[list[Encoded], int]]()
    stores = {name: store for name, store in stores.items() if len(store.paths)}
    for name, store in stores.items():
        counts = np.diff(store.starts)
        chosen, total = [], 0
        for index, count in enumerate(counts):
            if total + count <= limit // len(stores):
                chosen.append(index)
                total += int(count)
        chosen = chosen or [int(counts.argmin())]
        documents = [store.encoded(index) for index in chosen]
        chosen_of[name] = documents, sum(document.size for document in documents)
    return chosen_of


def compressors(texts: Sequence[bytes]) -> dict[str, dict[str, float]]:
    """Return the bits per byte of gzip -9 and xz -9e on texts: each alone, and all in one
    stream."""
    whole, size = b"".join(texts), sum(map(len, texts))
    packers: dict[str, Callable[[bytes], bytes]] = {
        "gzip -9": lambda data: gzip.compress(data, 9, mtime=0),
        "xz -9e": _xz,
    }
    return {
        name: {
            "each file": sum(len(pack(text)) for text in texts) * 8 / size,
            "one stream": len(pack(whole)) * 8 / size,
        }
        for name, pack in packers.items()
    }


def _xz(data: bytes) -> bytes:
    """Return what xz -9e makes of data. Its dictionary of 64 MiB takes longer to lay out than a
    short text to pack: of more than the text, nothing is used."""
    extreme = 9 | lzma.PRESET_EXTREME
    size = min(max(len(data), 1 << 12), 1 << 26)
    lzma2 = {"id": lzma.FILTER_LZMA2, "preset": extreme, "dict_size": size}
    return lzma.compress(data, filters=[lzma2])


def _nats(
    model: Griffin | Objective, batch: TrainBatch, part: slice, *, split: bool
) -> torch.Tensor:
    """split: every row is cut over ranks, and so must be as long as it was made."""
    of = model if isinstance(model, Griffin) else model.griffin
    rows = batch.rows(part, of.device)
    rows = rows if split else rows.without_ends()
    if isinstance(model, Griffin):
        return row_nats(model, rows)[0]
    return model(rows.tokens, rows.targets, rows.segment_pos, rows.mask)[0]
