"""WordNet's database: senses, their glosses, and how they hang together (manual page wndb.5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_PARTS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
PART_OF_SPEECH = {"n": "noun", "v": "verb", "a": "adjective", "s": "adjective", "r": "adverb"}


@dataclass(frozen=True)
class Sense:
    """One meaning: words that share it, and its gloss.

    key:       part of speech and offset, its name in the database.
    hypernyms: keys of what it is a kind of.
    opposites: (which of its words, counted from 0, and key and word of the opposite).
    """

    key: str
    part: str
    words: tuple[str, ...]
    gloss: str
    examples: tuple[str, ...]
    hypernyms: tuple[str, ...]
    opposites: tuple[tuple[int, str, int], ...]


@dataclass
class WordNet:
    """All senses, and the senses of each word, the commonest first.

    counts: how often a word was met in a sense, in the texts that were tagged by hand.
    broken: lines that could not be read, with their files.
    """

    senses: dict[str, Sense] = field(default_factory=dict)
    words: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def above(self, key: str) -> Iterator[str]:
        """Yield the keys of all that a sense is a kind of, nearest first."""
        seen, near = {key}, list(self.senses[key].hypernyms)
        while near:
            next_ = near.pop(0)
            if next_ not in seen and next_ in self.senses:
                seen.add(next_)
                yield next_
                near.extend(self.senses[next_].hypernyms)

    def common(self, part: str, least: int = 1) -> list[tuple[str, Sense]]:
        """Return the words whose first sense is of a part and was met at least so often."""
        found = []
        for word, keys in self.words.items():
            first = self.senses.get(keys[0])
            met = first is not None and self.counts.get((word, first.key), 0) >= least
            if first is not None and met and first.part == part:
                found.append((word, first))
        return found


def read(folder: Path) -> WordNet:
    """Return the database of the package's folder."""
    place, net = folder / "usr/share/wordnet", WordNet()
    for name, part in _PARTS.items():
        for number, line in _lines(place / f"data.{name}"):
            try:
                sense = _sense(line)
            except (ValueError, IndexError):
                net.broken.append(f"data.{name}:{number}")
                continue
            net.senses[part + line[:8]] = sense
    order: dict[str, list[tuple[int, str]]] = {}
    for name, part in _PARTS.items():
        for number, line in _lines(place / f"index.{name}"):
            try:
                word, keys, tagged = _index(line, part)
            except (ValueError, IndexError):
                net.broken.append(f"index.{name}:{number}")
                continue
            # A word of several parts begins with the part of which more senses were met.
            rank = [(place_ - min(tagged, 3) * 10, key) for place_, key in enumerate(keys)]
            order.setdefault(word, []).extend(rank)
    net.words = {word: [key for _, key in sorted(keys)] for word, keys in order.items()}
    _count(net, place / "cntlist.rev")
    return net


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="ascii", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.startswith("  "):  # the licence
                yield number, line


def _plain(word: str) -> str:
    return word.split("(")[0].replace("_", " ")  # galore(ip): how it stands beside a noun


def _sense(line: str) -> Sense:
    data, _, said = line.partition(" | ")
    columns = data.split()
    offset, _, kind = columns[:3]
    count = int(columns[3], 16)
    words = tuple(_plain(word) for word in columns[4 : 4 + 2 * count : 2])
    at = 4 + 2 * count
    hypernyms, opposites = [], []
    for where in range(at + 1, at + 1 + 4 * int(columns[at]), 4):
        symbol, target, part, ends = columns[where : where + 4]
        key = ("a" if part == "s" else part) + target
        if symbol in ("@", "@i"):
            hypernyms.append(key)
        elif symbol == "!":
            opposites.append((int(ends[:2], 16) - 1, key, int(ends[2:], 16) - 1))
    pieces = [piece.strip() for piece in said.strip().split("; ")]
    examples = tuple(piece.strip('"') for piece in pieces if piece.startswith('"'))
    gloss = "; ".join(piece for piece in pieces if not piece.startswith('"'))
    if not (words and gloss):
        raise ValueError(line)
    own = ("a" if kind == "s" else kind) + offset
    return Sense(own, kind, words, gloss, examples, tuple(hypernyms), tuple(opposites))


def _index(line: str, part: str) -> tuple[str, list[str], int]:
    columns = line.split()
    senses = int(columns[2])
    keys = [part + offset for offset in columns[-senses:]]
    return _plain(columns[0]), keys, int(columns[-senses - 1])


def _count(net: WordNet, path: Path) -> None:
    """Fill in how often each word was met in each sense."""
    parts = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}
    for number, line in _lines(path):
        try:
            name, sense, count = line.split()
            word, _, rest = name.partition("%")
            keys = [key for key in net.words[_plain(word)] if key[0] == parts[rest[0]]]
            net.counts[_plain(word), keys[int(sense) - 1]] = int(count)
        except (ValueError, KeyError, IndexError):
            net.broken.append(f"cntlist.rev:{number}")
