"""Documents to train on: text files, or a Python installation's own standard library."""

from __future__ import annotations

import hashlib
import os
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from griffin.train.recipe import DataRecipe

# Installed packages and caches lie inside the library's folder but are not the library.
_NOT_THE_LIBRARY = ("site-packages/**", "dist-packages/**", "**/__pycache__/**")


@dataclass(frozen=True)
class TextFile:
    """Name one text file: `path` is relative to the corpus root with / between the parts."""

    path: str
    file: Path
    size: int

    @cached_property
    def fate(self) -> float:
        """A number in [0, 1) that depends on the path alone, the same on every machine."""
        return int.from_bytes(hashlib.sha256(self.path.encode()).digest()[:8], "big") / 2**64

    def read(self) -> str:
        """Return the text; line ends and everything else stay as they are in the file."""
        return self.file.read_bytes().decode("utf-8")


@dataclass(frozen=True)
class Corpus:
    """Hold the documents of a recipe, split into training and held-out ones, each sorted by path.

    skipped counts the files that matched but were too long, empty or not UTF-8.
    """

    train: tuple[TextFile, ...]
    held_out: tuple[TextFile, ...]
    skipped: int

    @property
    def held_out_bytes(self) -> int:
        return sum(document.size for document in self.held_out)

    @property
    def train_bytes(self) -> int:
        return sum(document.size for document in self.train)


def open_corpus(recipe: DataRecipe, folder: Path = Path()) -> Corpus:
    """Find the documents of a recipe and split them.

    A document is held out when the hash of its relative path falls below `recipe.held_out`: adding
    or removing other files never moves it to the other side. Raises ValueError if a side would be
    empty.
    """
    if recipe.source == "stdlib":
        root, excluded = Path(sysconfig.get_path("stdlib")), _NOT_THE_LIBRARY + recipe.exclude
    else:
        root, excluded = folder / recipe.root, recipe.exclude
    if not root.is_dir():
        raise ValueError(f"data.root: {root} is not a folder")
    documents, skipped = [], 0
    for document in _matching(root, recipe.include, excluded):
        if 0 < document.size <= recipe.max_document_bytes and _is_utf8(document.file):
            documents.append(document)
        else:
            skipped += 1
    train = tuple(d for d in documents if d.fate >= recipe.held_out)
    held_out = tuple(d for d in documents if d.fate < recipe.held_out)
    if not train or not held_out:
        raise ValueError(
            f"{len(documents)} documents below {root} match data.include={list(recipe.include)}: "
            f"{len(train)} to train on and {len(held_out)} held out; both need at least one"
        )
    return Corpus(train, held_out, skipped)


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


def _regex(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Translate glob patterns: `**/` is any number of folders, `*` and `?` stay inside one part."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    alternatives = []
    for pattern in patterns:
        pieces = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
        alternatives.append("".join(parts.get(piece, re.escape(piece)) for piece in pieces))
    return re.compile("|".join(alternatives) or r"(?!)")
