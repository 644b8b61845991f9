"""How much of what was held out stands in training: runs of thirteen words."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np

from griffin.text import Tokenizer
from griffin.train.data.store import TokenStore, open_store, read_index

WORDS = 13


class Runs:
    """Hash runs of words. Words are what white space separates; each has 64 bits of its own."""

    def __init__(self) -> None:
        self._random, self._bits = Random(0), dict[str, int]()
        # An odd number to the power of the place: a run's hash is a sum.
        powers = [pow(0x9E3779B97F4A7C15, place, 1 << 64) for place in range(WORDS)]
        self._powers = np.array(powers, dtype=np.uint64)

    def hashes(self, text: str) -> np.ndarray:
        """Return a hash of each run of a text's words, (words - 12,) uint64; empty for less."""
        words = text.split()
        if len(words) < WORDS:
            return np.zeros(0, dtype=np.uint64)
        for word in words:
            if word not in self._bits:
                self._bits[word] = self._random.getrandbits(64)
        bits = np.array([self._bits[word] for word in words], dtype=np.uint64)
        runs = np.lib.stride_tricks.sliding_window_view(bits, WORDS)
        return (runs * self._powers).sum(axis=1, dtype=np.uint64)


def overlap(run: Path) -> dict[str, dict[str, int]]:
    """Return, of each source of a training run's folder, how many runs of thirteen words its
    held-out documents have, and how many of those stand in what any source trains on."""
    index, tokenizer, runs = read_index(run / "data"), Tokenizer.open(run), Runs()

    def of_side(name: str, side: str) -> np.ndarray:
        notes = index["stores"][name][side]
        store = open_store(run / "data" / name / side, index["dtype"], notes)
        found = [runs.hashes(text) for text in _texts(store, tokenizer)]
        return np.concatenate([np.zeros(0, dtype=np.uint64), *found])

    trained = np.unique(np.concatenate([of_side(name, "train") for name in index["stores"]]))
    counts = dict[str, dict[str, int]]()
    for name in index["stores"]:
        held = of_side(name, "held_out")
        counts[name] = {"runs": len(held), "in_training": int(np.isin(held, trained).sum())}
    return counts


def _texts(store: TokenStore, tokenizer: Tokenizer) -> list[str]:
    documents = range(len(store.paths))
    return [tokenizer.decode(store.document(place).tolist()) for place in documents]
