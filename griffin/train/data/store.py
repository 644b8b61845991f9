"""Encoded documents on disk, memory-mapped: made once, read by every epoch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from griffin.text import Tokenizer
from griffin.train.data.corpus import TextFile
from griffin.train.files import write_json


@dataclass(frozen=True)
class TokenStore:
    """Hold encoded documents end to end, memory-mapped.

    ids:     (N,) uint16 or uint32, every document from <bos> to <eos>.
    starts:  (documents + 1,) int64, where each begins; the last entry is N.
    sizes:   bytes of text in each document.
    paths:   their names.
    counted: (S, 2) int64, in order: runs of places in `ids`, from and to, whose tokens are targets
             of the loss; None: all are. Runs neither touch nor overlap.
    """

    ids: np.ndarray
    starts: np.ndarray
    sizes: tuple[int, ...]
    paths: tuple[str, ...]
    counted: np.ndarray | None = None

    @property
    def num_pairs(self) -> int:
        return int(len(self.ids) - len(self.paths))

    @property
    def num_bytes(self) -> int:
        return sum(self.sizes)

    def document(self, index: int) -> np.ndarray:
        """Return the ids of one document as int64."""
        return self.ids[self.starts[index] : self.starts[index + 1]].astype(np.int64)

    def counted_before(self, places: np.ndarray) -> np.ndarray:
        """Return how many tokens before each place in `ids` are counted, int64."""
        if self.counted is None:
            return np.asarray(places, dtype=np.int64)
        run = np.searchsorted(self.counted[:, 0], places, side="right")
        # All runs that begin up to a place, less what of the last one lies behind it.
        ends, sums = self._sums
        return sums[run] - np.maximum(ends[run] - places, 0)

    @cached_property
    def _sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the first n runs end, and how many tokens they count, (S + 1,) each."""
        assert self.counted is not None
        runs = np.concatenate([np.zeros((1, 2), dtype=np.int64), self.counted])
        return runs[:, 1], np.cumsum(runs[:, 1] - runs[:, 0])

    def is_counted(self, start: int, stop: int) -> np.ndarray:
        """Return which of ids[start:stop] are counted, bool."""
        return np.diff(self.counted_before(np.arange(start, stop + 1))) > 0


def encode_one(text: str, tokenizer: Tokenizer) -> np.ndarray:
    """Return the ids of a text from <bos> to <eos>, int64; control tokens in the text stay text."""
    return np.asarray([*tokenizer.encode(text), tokenizer.eos_id], dtype=np.int64)


def encode_documents(
    documents: Sequence[TextFile],
    tokenizer: Tokenizer,
    path: Path,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Encode documents into `path` (.bin, raw ids) and its index (.json beside it).

    Control tokens that happen to stand in a text are encoded as the characters they are. The index
    is written last, so that a store without one is known to be unfinished. check: called before
    each document; an exception of its own ends the work.
    """
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
    lengths, sizes = [], []
    part = path.with_suffix(".part")
    with part.open("wb") as out:
        for document in documents:
            check()
            ids = encode_one(document.read(), tokenizer)
            out.write(ids.astype(dtype).tobytes())
            lengths.append(len(ids))
            sizes.append(document.size)
    part.replace(path)
    index = {
        "dtype": np.dtype(dtype).name,
        "lengths": lengths,
        "sizes": sizes,
        "paths": [document.path for document in documents],
    }
    write_json(path.with_suffix(".json"), index)


def open_store(path: Path) -> TokenStore:
    """Open what `encode_documents` wrote; ValueError if it is missing, torn or does not fit its
    index."""
    try:
        index = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        dtype = np.dtype(index["dtype"])
        lengths, sizes, paths = index["lengths"], tuple(index["sizes"]), tuple(index["paths"])
        found = path.stat().st_size
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: no readable token store ({error}); delete its folder to encode anew"
        ) from error
    starts = np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))])
    if found != starts[-1] * dtype.itemsize:
        raise ValueError(
            f"{path} has {found} bytes, its index says {starts[-1] * dtype.itemsize}; "
            "delete its folder to encode anew"
        )
    return TokenStore(np.memmap(path, dtype=dtype, mode="r"), starts, sizes, paths)
