"""Documents to train on: text files, or a Python installation's own standard library."""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from griffin.train.data.split import Overlap, fate_of, line_hashes, split
from griffin.train.recipe import DataRecipe

# Installed packages and caches lie inside the library's folder but are not the library.
_NOT_THE_LIBRARY = ("site-packages/**", "dist-packages/**", "**/__pycache__/**")


@dataclass(frozen=True)
class TextFile:
    """Name one document: a text file, or a piece of one.

    path:  relative to the corpus root with / between the parts; a piece has "#" and its number
           behind it.
    size:  bytes of it, from `start` on.
    """

    path: str
    file: Path
    size: int
    start: int = 0

    @cached_property
    def fate(self) -> float:
        """A number in [0, 1) that depends on the path alone, the same on every machine."""
        return fate_of(self.path.encode())

    def read_bytes(self) -> bytes:
        """Return the document as it lies on the disk."""
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            return stream.read(self.size)

    def read(self) -> str:
        """Return the text; line ends and everything else stay as they are in the file."""
        return self.read_bytes().decode("utf-8")


@dataclass(frozen=True)
class Corpus:
    """Hold the documents of a recipe, split into training and held-out ones, each sorted by path.

    skipped: how many files that matched were left out, by reason. cut: how many were too long for
    one document and became several. overlap: what of the held-out ones stands in training.
    """

    train: tuple[TextFile, ...]
    held_out: tuple[TextFile, ...]
    skipped: Mapping[str, int]
    cut: int = 0
    overlap: Overlap = field(default_factory=Overlap)

    @property
    def left_out(self) -> str:
        """What was left out or cut, in words."""
        said = [f"{count} {reason}" for reason, count in self.skipped.items() if count]
        told = f"left out: {', '.join(said)}" if said else "nothing left out"
        return told + (f"; {self.cut} long files cut into pieces" if self.cut else "")

    @property
    def held_out_bytes(self) -> int:
        return sum(document.size for document in self.held_out)

    @property
    def train_bytes(self) -> int:
        return sum(document.size for document in self.train)


def open_corpus(recipe: DataRecipe, folder: Path = Path()) -> Corpus:
    """Find the documents of a recipe and split them.

    A file longer than `recipe.max_document_bytes` becomes several documents, cut at ends of lines.
    A document is held out when the hash of its path falls below `recipe.held_out` and training does
    not repeat it (`split`). One that is alone is cut in two. Raises ValueError if there is nothing
    to read.
    """
    if not isinstance(recipe.source, str):
        raise ValueError("tables [[data.source]] cannot be read yet; use source = 'files'")
    if recipe.source == "stdlib":
        root, excluded = Path(sysconfig.get_path("stdlib")), _NOT_THE_LIBRARY + recipe.exclude
    else:
        root, excluded = folder / recipe.root, recipe.exclude
    if not root.is_dir():
        raise ValueError(f"data.root: {root} is not a folder")
    documents, skipped, cut = list[TextFile](), {"empty": 0, "not UTF-8": 0}, 0
    for document in _matching(root, recipe.include, excluded):
        if not document.size:
            skipped["empty"] += 1
        elif not _is_utf8(document.file):
            skipped["not UTF-8"] += 1
        else:
            pieces = _pieces(document, recipe.max_document_bytes)
            cut += len(pieces) > 1
            documents += pieces
    if len(documents) == 1:  # the end of it is held out
        documents = _pieces(documents[0], int(documents[0].size * (1 - recipe.held_out)) or 1)
        fates = np.asarray([1.0, *[0.0] * (len(documents) - 1)])
    else:
        fates = np.asarray([document.fate for document in documents])
    if len(documents) < 2:
        raise ValueError(
            f"{len(documents)} documents below {root} match"
            f" data.include={list(recipe.include)} ({Corpus((), (), skipped).left_out}); it takes"
            " one to train on and one to hold out"
        )
    lines = [line_hashes(document.read()) for document in documents]
    starts = np.cumsum([0, *map(len, lines)])
    held, overlap = split(fates, starts, np.concatenate(lines), recipe.held_out)
    train, held_out = (
        tuple(document for document, out in zip(documents, held, strict=True) if out == side)
        for side in (False, True)
    )
    return Corpus(train, held_out, skipped, cut, overlap)


def _matching(root: Path, include: tuple[str, ...], exclude: tuple[str, ...]) -> Iterator[TextFile]:
    """Yield the matching files, sorted by path."""
    wanted, refused = _regex(include), _regex(exclude)
    # A folder whose whole content is excluded need not be entered; there may be a whole environment
    # in it.
    closed = _regex(tuple(pattern for pattern in exclude if pattern.endswith("/**")))
    found = []
    for folder, folders, files in os.walk(root):
        base = Path(folder).relative_to(root)
        folders[:] = [
            name for name in folders if not closed.fullmatch((base / name).as_posix() + "/")
        ]
        found += [(base / name).as_posix() for name in files]
    for path in sorted(found):
        if wanted.fullmatch(path) and not refused.fullmatch(path) and (root / path).is_file():
            yield TextFile(path, root / path, (root / path).stat().st_size)


def _is_utf8(file: Path) -> bool:
    try:
        file.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _pieces(document: TextFile, most: int) -> list[TextFile]:
    """Cut a document into pieces of at most `most` bytes, at ends of lines where there are some."""
    if document.size <= most:
        return [document]
    text, pieces, start = document.read_bytes(), list[TextFile](), 0
    while start < len(text):
        end = min(start + most, len(text))
        if end < len(text):
            line = text.rfind(b"\n", start, end) + 1
            while line == 0 and end > start + 1 and text[end] & 0xC0 == 0x80:
                end -= 1  # not within a letter
            end = line or end
        path = f"{document.path}#{len(pieces)}"
        pieces.append(TextFile(path, document.file, end - start, document.start + start))
        start = end
    return pieces


def _regex(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Translate glob patterns: `**/` is any number of folders, `*` and `?` stay inside one part."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    alternatives = []
    for pattern in patterns:
        pieces = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
        alternatives.append("".join(parts.get(piece, re.escape(piece)) for piece in pieces))
    return re.compile("|".join(alternatives) or r"(?!)")
