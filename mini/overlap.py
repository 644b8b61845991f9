"""How much of what was held out stands in training: runs of thirteen words."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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


def overlap(run: Path, questions: Collection[str]) -> dict[str, dict[str, int]]:
    """Return, of each source of a training run's folder, how many runs of thirteen words its
    held-out documents have, and how many of those stand in what other documents train on.

    questions: names of sources that ask about what the others say. "in_texts" counts what stands
    in training without these, "in_training" what stands in it at all.
    """
    index, tokenizer, runs = read_index(run / "data"), Tokenizer.open(run), Runs()

    def of_side(name: str, side: str) -> np.ndarray:
        notes = index["stores"][name][side]
        store = open_store(run / "data" / name / side, index["dtype"], notes)
        return _joined([runs.hashes(text) for text in _texts(store, tokenizer)])

    trained = {name: of_side(name, "train") for name in index["stores"]}
    texts = np.unique(_joined([found for name, found in trained.items() if name not in questions]))
    whole = np.unique(_joined([texts, *(trained[name] for name in trained if name in questions)]))
    counts = dict[str, dict[str, int]]()
    for name in index["stores"]:
        held = of_side(name, "held_out")
        counts[name] = {
            "runs": len(held),
            "in_texts": _among(held, texts),
            "in_training": _among(held, whole),
        }
    return counts


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=np.uint64), *parts])


def _among(held: np.ndarray, trained: np.ndarray) -> int:
    """Return how many of `held` are in `trained`, which is sorted."""
    if not len(trained):
        return 0
    places = np.minimum(np.searchsorted(trained, held), len(trained) - 1)
    return int((trained[places] == held).sum())


def _texts(store: TokenStore, tokenizer: Tokenizer) -> list[str]:
    documents = range(len(store.paths))
    return [tokenizer.decode(store.document(place).tolist()) for place in documents]
