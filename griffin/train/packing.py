"""Documents as rows of fixed length: encoded once, kept on disk, packed anew for every epoch.

A document of n tokens, <bos> first and <eos> last, is n - 1 pairs (token, next token). An epoch
shuffles the documents, lays their pairs end to end and cuts rows of equal length from them; then
the rows are shuffled. So every pair is trained on once an epoch (but for less than a row at the
end), no position is wasted on padding, and no target ever belongs to another document.
`segment_pos` is 0 where a document starts and where a row starts: the piece of a document that a
cut leaves at the head of a row is read without what came before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from griffin.train.corpus import TextFile


@dataclass(frozen=True)
class TrainBatch:
    """Hold rows for one step.

    tokens, targets, segment_pos: (R, L) int64; mask: (R, L) bool, False where a target is no real
                                  one.
    """

    tokens: Tensor
    targets: Tensor
    segment_pos: Tensor
    mask: Tensor

    def rows(self, place: slice, device: torch.device) -> TrainBatch:
        """Return some of the rows, on a device."""
        parts = (self.tokens, self.targets, self.segment_pos, self.mask)
        return TrainBatch(*(part[place].to(device) for part in parts))


@dataclass(frozen=True)
class TokenStore:
    """Hold encoded documents end to end, memory-mapped.

    ids:     (N,) uint16 or uint32, every document from <bos> to <eos>.
    starts:  (documents + 1,) int64, where each begins; the last entry is N.
    sizes:   bytes of text in each document.
    paths:   their names.
    """

    ids: np.ndarray
    starts: np.ndarray
    sizes: tuple[int, ...]
    paths: tuple[str, ...]

    @property
    def num_pairs(self) -> int:
        return int(len(self.ids) - len(self.paths))

    @property
    def num_bytes(self) -> int:
        return sum(self.sizes)

    def document(self, index: int) -> np.ndarray:
        """Return the ids of one document as int64."""
        return self.ids[self.starts[index] : self.starts[index + 1]].astype(np.int64)


def encode_one(text: str, tokenizer: Tokenizer) -> np.ndarray:
    """Return the ids of a text from <bos> to <eos>, int64; control tokens in the text stay text."""
    tokenizer.encode_special_tokens = True
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return np.asarray(
        [tokenizer.token_to_id("<bos>"), *ids, tokenizer.token_to_id("<eos>")], dtype=np.int64
    )


def encode_documents(documents: Sequence[TextFile], tokenizer: Tokenizer, path: Path) -> None:
    """Encode documents into `path` (.bin, raw ids) and its index (.json beside it).

    Control tokens that happen to stand in a text are encoded as the characters they are. The index
    is written last, so that a store without one is known to be unfinished.
    """
    dtype = np.uint16 if tokenizer.get_vocab_size() <= 2**16 else np.uint32
    lengths, sizes = [], []
    part = path.with_suffix(".part")
    with part.open("wb") as out:
        for document in documents:
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


class Packer:
    """Cut a token store into rows; row number n is the same whenever it is asked for."""

    def __init__(self, store: TokenStore, length: int, seed: int) -> None:
        """length: tokens in a row. Raises ValueError if the store has too few tokens for a single
        row."""
        self.store, self.length, self.seed = store, length, seed
        self.rows_per_epoch = store.num_pairs // length
        if not self.rows_per_epoch:
            raise ValueError(
                f"the training documents hold {store.num_pairs} tokens, less than one row of"
                f" {length}; shorten train.length or add documents"
            )
        self._epoch = -1
        self._documents = self._row_order = np.zeros(0, dtype=np.int64)
        self._offsets = np.zeros(1, dtype=np.int64)

    def batch(self, first_row: int, rows: int) -> TrainBatch:
        """Return `rows` rows from `first_row` on, counted from training's start over all epochs."""
        tokens = np.empty((rows, self.length), dtype=np.int64)
        targets, positions = np.empty_like(tokens), np.empty_like(tokens)
        for index in range(rows):
            epoch, row = divmod(first_row + index, self.rows_per_epoch)
            self._enter(epoch)
            self._fill(int(self._row_order[row]), tokens[index], targets[index], positions[index])
        mask = torch.ones(rows, self.length, dtype=torch.bool)
        return TrainBatch(
            torch.from_numpy(tokens), torch.from_numpy(targets), torch.from_numpy(positions), mask
        )

    def documents(self, row: int) -> list[tuple[str, int]]:
        """Return the documents in a row, by path, and at which of its tokens each begins there."""
        epoch, row = divmod(row, self.rows_per_epoch)
        self._enter(epoch)
        at = int(self._row_order[row]) * self.length
        first = int(np.searchsorted(self._offsets, at, side="right")) - 1
        last = int(np.searchsorted(self._offsets, at + self.length, side="left"))
        return [
            (
                self.store.paths[int(self._documents[place])],
                max(0, at - int(self._offsets[place])),
            )
            for place in range(first, last)
        ]

    def _enter(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        random = np.random.default_rng([self.seed, epoch])
        self._documents = random.permutation(len(self.store.paths))
        self._row_order = random.permutation(self.rows_per_epoch)
        pairs = np.diff(self.store.starts)[self._documents] - 1
        self._offsets = np.concatenate([[0], np.cumsum(pairs)])
        self._epoch = epoch

    def _fill(
        self, row: int, tokens: np.ndarray, targets: np.ndarray, positions: np.ndarray
    ) -> None:
        at, end, filled = row * self.length, (row + 1) * self.length, 0
        place = int(np.searchsorted(self._offsets, at, side="right")) - 1
        while at < end:
            start = int(self.store.starts[self._documents[place]]) + at - int(self._offsets[place])
            count = min(end, int(self._offsets[place + 1])) - at
            ids = self.store.ids[start : start + count + 1]
            tokens[filled : filled + count] = ids[:-1]
            targets[filled : filled + count] = ids[1:]
            positions[filled : filled + count] = np.arange(count)
            at, filled, place = at + count, filled + count, place + 1


def pad_documents(documents: Iterable[np.ndarray], length: int) -> TrainBatch:
    """Cut each document on its own into rows of `length`, in order, padded on the right.

    Padding is id 0 with its target masked; causality keeps it from the real tokens before it.
    """
    parts = []
    for ids in documents:
        pairs = len(ids) - 1
        padded = np.zeros((3, -(-pairs // length) * length), dtype=np.int64)
        padded[0, :pairs], padded[1, :pairs], padded[2, :pairs] = ids[:-1], ids[1:], 1
        parts.append(padded.reshape(3, -1, length))
    tokens, targets, mask = torch.from_numpy(np.concatenate(parts, axis=1))
    return TrainBatch(tokens, targets, torch.arange(length).expand_as(tokens), mask.bool())


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON beside the file, then put it in its place."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
