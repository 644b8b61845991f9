"""All documents of a recipe, looked at once: what is wrong with which, and which are held out."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from griffin.train.data.document import NamedExample, understand
from griffin.train.data.example import words_of
from griffin.train.data.journal import Journal
from griffin.train.data.source import DataSource, RecordBlock, blocks
from griffin.train.data.split import Overlap, fate_of, line_hashes, split
from griffin.train.data.workers import in_order

if TYPE_CHECKING:  # what works on blocks needs no model, nor torch
    from griffin.train.recipe import Reads

BAD_LINES = "bad_lines.jsonl"
SKIP_HINT = "; --skip-bad leaves such rows out, and lists them"


# What progress is told to: bytes and documents done since it was last told.
Show = Callable[[int, int], None]


@dataclass(frozen=True)
class Survey:
    """Hold what is known of the documents of all sources, in their order.

    held:    (documents,) bool: held out.
    blocks:  (blocks, 2) int64: the source of each block, and how many documents are in it.
    sizes:   (documents,) int64: bytes of what each says.
    overlap: what of the held-out ones stands in training.
    left, bad, cut: how many records were left out, by reason; passed over as bad; cut into several.
    most:    bytes of a document.
    reads:   what rows had to say.
    """

    held: np.ndarray
    blocks: np.ndarray
    sizes: np.ndarray
    overlap: Overlap
    left: Mapping[str, int]
    bad: int
    cut: int
    most: int
    reads: Reads

    @property
    def left_out(self) -> str:
        """What was left out or cut, in words."""
        return _left_out(self.left, self.bad, self.cut, f" (data/{BAD_LINES} lists them)")

    def documents(
        self, sources: Sequence[DataSource], held: bool
    ) -> Iterator[tuple[int, NamedExample]]:
        """Read the documents of one side again, each with the number of its source."""
        for block, sides in self.with_sides(sources):
            documents = understand(block, self.most, self.reads).documents
            for each, out in zip(documents, sides, strict=True):
                if out == held:
                    yield block.source, each

    def with_sides(self, sources: Sequence[DataSource]) -> Iterator[tuple[RecordBlock, np.ndarray]]:
        """Read the blocks again, each with which of its documents are held out."""
        at = 0
        for block, count in zip(blocks(sources, self.most), self.blocks[:, 1], strict=True):
            yield block, self.held[at : at + count]
            at += count


@dataclass(frozen=True)
class _Look:
    """Look at a block: what is kept of it, as columns in bytes, and what is told of it."""

    most: int
    reads: Reads

    def __call__(self, block: RecordBlock) -> tuple[dict[str, bytes], dict[str, Any]]:
        found = understand(block, self.most, self.reads)
        words = [words_of(document.example) for document in found.documents]
        # Prompts often share how they begin; they are copies where they are known by the same.
        alike = [d.known_by.hex() for d in found.documents] if self.reads != "answers" else words
        lines = [line_hashes(each) for each in alike]
        columns = {
            "fates": np.asarray([fate_of(d.known_by) for d in found.documents], dtype=np.float64),
            "counts": np.asarray([len(each) for each in lines], dtype=np.int64),
            "sizes": np.asarray([len(each.encode()) for each in words], dtype=np.int64),
            "lines": np.concatenate([*lines, np.zeros(0, np.uint64)]),
            "blocks": np.asarray([block.source, len(lines)], dtype=np.int64),
        }
        told = {
            "bad": found.bad,
            "refused": found.refused,
            "left": found.left,
            "cut": found.cut,
            "size": block.size,
        }
        return {f"{name}.bin": column.tobytes() for name, column in columns.items()}, told


def survey(
    sources: Sequence[DataSource],
    held_out: float,
    most: int,
    folder: Path,
    reads: Reads = "answers",
    *,
    workers: int = 1,
    skip_bad: bool = False,
    check: Callable[[], None] = lambda: None,
    show: Show = lambda size, documents: None,
) -> Survey:
    """Look at all documents and split them, in the journal of a folder, where it goes on.

    held_out: share of documents held out (`split`). most: bytes of a document; longer texts become
    several. One that is alone is cut in two. reads: what rows must say. check: called between
    blocks; what it raises ends the work. Raises ValueError for a bad record, naming it and why,
    unless skip_bad, which lists them in the folder's `BAD_LINES`; for records that say something
    else; and if there is nothing to read.
    """
    how = (reads, workers, skip_bad, check, show)
    seen = _look(sources, most, folder, *how)
    fates = _column(folder, "fates", np.float64)
    if len(fates) == 1:  # the end of it is held out
        most = int(_column(folder, "sizes", np.int64)[0] * (1 - held_out)) or 1
        seen = _look(sources, most, folder, *how)
        fates = _column(folder, "fates", np.float64) * 0.0
        fates[0] = 1.0
    if len(fates) < 2:
        bad = seen["told"]["bad"]  # the list of them is not where a run has it, and may go
        left = _left_out(seen["left"], bad, 0, _first_bad(folder) if bad else "")
        places = ", ".join(source.place for source in sources)
        if not any(source.size for source in sources):
            raise ValueError(f"data: {places} is empty: there is nothing to learn")
        count = f"{len(fates)} document{'' if len(fates) == 1 else 's'}"
        raise ValueError(
            f"{count} in {places} ({left}); it takes one to train on and one to hold"
            f" out{', and this one cannot be cut in two' if len(fates) else ''}"
        )
    starts = np.concatenate([[0], np.cumsum(_column(folder, "counts", np.int64))])
    lines = np.memmap(folder / "lines.bin", np.uint64, "r")
    held, overlap = split(fates, starts, lines, held_out)
    return Survey(
        held=held,
        blocks=_column(folder, "blocks", np.int64).reshape(-1, 2),
        sizes=_column(folder, "sizes", np.int64),
        overlap=overlap,
        most=most,
        reads=reads,
        **_told(seen),
    )


def digest(*values: Any) -> str:
    """Return a hash of plain values."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _look(
    sources: Sequence[DataSource],
    most: int,
    folder: Path,
    reads: Reads,
    workers: int,
    skip_bad: bool,
    check: Callable[[], None],
    show: Show,
) -> dict[str, Any]:
    """Keep in a journal what is known of each document; return what is told of all."""
    identity = digest("survey", [source.identity() for source in sources], most, reads, skip_bad)
    with Journal(folder, identity) as journal:
        told = Counter[str](journal.notes.get("told", {}))
        left = Counter[str](journal.notes.get("left", {}))
        done = itertools.islice(blocks(sources, most), journal.blocks, None)
        for columns, seen in in_order(_Look(most, reads), done, workers):
            check()
            wrong = seen["refused"] or (seen["bad"][0] if seen["bad"] and not skip_bad else None)
            if wrong:
                hint = "" if seen["refused"] else SKIP_HINT
                raise ValueError(f"{wrong[0]}: {wrong[1]}{hint}")
            if seen["bad"]:
                columns[BAD_LINES] = bad_lines(seen["bad"])
            documents = len(columns["fates.bin"]) // 8
            told.update(bad=len(seen["bad"]), cut=seen["cut"], documents=documents)
            left.update(seen["left"])
            journal.append(columns, {"told": told, "left": left})
            show(seen["size"], documents)
        return {"told": told, "left": left}


def bad_lines(bad: Sequence[tuple[str, str]]) -> bytes:
    """Return what is listed of records that are passed over: a line of JSON each."""
    lines = [json.dumps({"where": where, "reason": reason}) for where, reason in bad]
    return "".join(f"{line}\n" for line in lines).encode()


def _first_bad(folder: Path) -> str:
    """Return where the first of the records is that were passed over, and why."""
    with (folder / BAD_LINES).open(encoding="utf-8") as lines:
        first = json.loads(lines.readline())
    return f" (the first is {first['where']}: {first['reason']})"


def _left_out(left: Mapping[str, int], bad: int, cut: int, lines: str) -> str:
    """lines: what is said of bad lines beside their number."""
    said = [f"{count} {reason}" for reason, count in left.items() if count]
    said += [f"{bad} bad line{'s' * (bad > 1)}{lines}"] if bad else []
    told = f"left out: {', '.join(said)}" if said else "nothing left out"
    return told + (f"; {cut} long texts cut into pieces" if cut else "")


def _told(seen: Mapping[str, Any]) -> dict[str, Any]:
    return {"left": seen["left"], "bad": seen["told"]["bad"], "cut": seen["told"]["cut"]}


def _column(folder: Path, name: str, dtype: type) -> np.ndarray:
    path = folder / f"{name}.bin"
    return np.fromfile(path, dtype) if path.exists() else np.zeros(0, dtype)
