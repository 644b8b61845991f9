"""Encoded documents on disk, memory-mapped: made once, read by every epoch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from griffin.train.data.encode import Encoded

# The files of a store and what is in them; "ids" is uint16 or uint32, by the vocabulary.
_COLUMNS = {"ends": np.int64, "sizes": np.int64, "counted": np.int64, "name_ends": np.int64}
INDEX = "index.json"
_CHECKED = 1 << 24  # ids that are looked at at a time


class DocumentNames(Sequence[str]):
    """DocumentNames end to end in one array of bytes. ends: where each ends, (names,) int64."""

    def __init__(self, content: np.ndarray, ends: np.ndarray) -> None:
        self._content, self._ends = content, ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self[place] for place in range(*index.indices(len(self))))
        place = range(len(self))[index]
        start = int(self._ends[place - 1]) if place else 0
        return self._content[start : int(self._ends[place])].tobytes().decode()


@dataclass(frozen=True)
class TokenStore:
    """Hold encoded documents end to end, memory-mapped.

    ids:     (N,) uint16 or uint32, every document from <bos> on.
    starts:  (documents + 1,) int64, where each begins; the last entry is N.
    sizes:   bytes of the text that is counted in each document.
    paths:   their names: files, pieces of them, or a row's file and line.
    counted: (S, 2) int64, in order: runs of places in `ids`, from and to, whose tokens are targets
             of the loss; None: all are. Runs neither touch nor overlap.
    """

    ids: np.ndarray
    starts: np.ndarray
    sizes: Sequence[int] | np.ndarray
    paths: Sequence[str]
    counted: np.ndarray | None = None

    @property
    def num_pairs(self) -> int:
        return int(len(self.ids) - len(self.paths))

    @property
    def num_bytes(self) -> int:
        return int(np.sum(self.sizes))

    @property
    def num_counted(self) -> int:
        """How many tokens are targets of the loss; all but each document's first, where all are."""
        if self.counted is None:
            return self.num_pairs
        return int(self.counted_before(np.array([len(self.ids)]))[0])

    def document(self, index: int) -> np.ndarray:
        """Return the ids of one document as int64."""
        return self.ids[self.starts[index] : self.starts[index + 1]].astype(np.int64)

    def encoded(self, index: int) -> Encoded:
        """Return one document with what is counted in it."""
        start, stop = int(self.starts[index]), int(self.starts[index + 1])
        counted = self.is_counted(start, stop)
        counted[0] = False  # nothing predicts <bos>
        return Encoded(self.document(index), counted, int(self.sizes[index]))

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


class StoreWriter:
    """Say what documents add to the files of a store, one call after another.

    folder: of the store, below that in which the files are appended to. notes: what `notes` was
    after the last call that is to be gone on with.
    """

    def __init__(self, folder: str, dtype: str, notes: dict[str, Any] | None = None) -> None:
        self.folder, self.dtype = folder, dtype
        self.notes = dict(notes or {"tokens": 0, "documents": 0, "name_bytes": 0, "whole": True})

    def add(self, documents: Sequence[tuple[str, Encoded]]) -> dict[str, bytes]:
        """Return the bytes to append, by file. documents: their names and what they are."""
        tokens, letters, notes = self.notes["tokens"], self.notes["name_bytes"], self.notes
        columns: dict[str, list[Any]] = {name: [] for name in ("ids", "names", *_COLUMNS)}
        for name, encoded in documents:
            edges = np.flatnonzero(np.diff(encoded.counted, prepend=False, append=False)) + tokens
            tokens, letters = tokens + len(encoded.ids), letters + len(name.encode())
            columns["ids"].append(encoded.ids.astype(self.dtype).tobytes())
            columns["names"].append(name.encode())
            columns["counted"] += edges.tolist()
            columns["ends"].append(tokens)
            columns["sizes"].append(encoded.size)
            columns["name_ends"].append(letters)
            notes["whole"] = notes["whole"] and bool(encoded.counted[1:].all())
        notes |= {"tokens": tokens, "name_bytes": letters}
        notes["documents"] += len(documents)
        parts = {name: np.asarray(columns[name], kind).tobytes() for name, kind in _COLUMNS.items()}
        parts |= {name: b"".join(columns[name]) for name in ("ids", "names")}
        return {f"{self.folder}/{name}.bin": part for name, part in parts.items()}


def open_store(folder: Path, dtype: str, notes: dict[str, Any]) -> TokenStore:
    """Open what a `StoreWriter` wrote to a folder; notes: its own, at the end.

    Raises ValueError if files are missing or do not fit them.
    """
    kinds = {**_COLUMNS, "ids": np.dtype(dtype), "names": np.uint8}
    columns = {name: _open(folder / f"{name}.bin", kind) for name, kind in kinds.items()}
    documents = len(columns["ends"])
    starts = np.concatenate([np.zeros(1, np.int64), columns["ends"]])
    counts = (len(columns["ids"]), documents, len(columns["names"]))
    asked = (notes["tokens"], notes["documents"], notes["name_bytes"])
    if counts != asked or starts[-1] != asked[0] or len(columns["sizes"]) != documents:
        raise ValueError(
            f"{folder} holds {counts[0]} tokens of {documents} documents, its index says {asked[0]}"
            f" of {asked[1]}; delete the run's data folder to encode anew"
        )
    names = DocumentNames(columns["names"], columns["name_ends"])
    counted = None if notes["whole"] else columns["counted"].reshape(-1, 2)
    return TokenStore(columns["ids"], starts, columns["sizes"], names, counted)


def check_tokens(folder: Path, store: TokenStore, vocab_size: int) -> None:
    """Raise ValueError if a store that lies in a folder holds ids beyond a vocabulary.

    All of them are read, about as fast as the disk tells them.
    """
    for start in range(0, len(store.ids), _CHECKED):
        most = int(np.max(store.ids[start : start + _CHECKED]))
        if most >= vocab_size:
            raise ValueError(
                f"{folder / 'ids.bin'} is damaged: it holds token {most}, the vocabulary has"
                f" {vocab_size}; delete the run's data folder to encode anew"
            )


def _open(path: Path, dtype: Any) -> np.ndarray:
    try:
        size = path.stat().st_size
        return np.memmap(path, dtype=dtype, mode="r") if size else np.zeros(0, dtype)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: no readable token store ({error}); delete the run's data folder to encode"
            " anew"
        ) from error


def read_index(folder: Path) -> dict[str, Any]:
    """Return what a folder of stores says of itself; ValueError where it is not finished.

    "recipe" and "files" are digests of what they were made by and from, "" where that was not
    written down.
    """
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        found = {key: index[key] for key in ("dtype", "stores", "overlap")}
        return found | {key: index.get(key, "") for key in ("recipe", "files")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: no readable token store ({error}); delete the run's data folder to encode"
            " anew"
        ) from error
