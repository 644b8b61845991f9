"""A source as a run of blocks: a few hundred records each, the same whoever asks and how often."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from griffin.train.data.files import (
    FoundFiles,
    RawRecord,
    SourceFile,
    find_files,
    read_lines,
    read_text,
)
from griffin.train.data.tables import open_hub, read_hub, read_parquet

if TYPE_CHECKING:  # what works on blocks needs no model, nor torch
    from griffin.train.recipe import DataRecipe, SourceRecipe

_BYTES, _RECORDS = 1 << 19, 500  # of a block, about


@dataclass(frozen=True)
class RecordBlock:
    """Hold records that are understood together. source: its place among the recipe's; columns:
    those that are read, none: all; size: bytes that reading it took, about."""

    source: int
    records: list[RawRecord]
    columns: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class DataSource:
    """Read one source of a recipe. folder: where relative paths start."""

    recipe: SourceRecipe
    folder: Path

    @cached_property
    def found(self) -> FoundFiles:
        return FoundFiles([], []) if self.recipe.hub else find_files(self.recipe, self.folder)

    @property
    def files(self) -> list[SourceFile]:
        return self.found.files

    @property
    def place(self) -> str:
        """Say where it is: a path, the name of a set of the Hub, or the standard library."""
        if self.recipe.stdlib:
            return "the standard library"
        return self.recipe.hub or str(self.folder / self.recipe.path)

    @property
    def passed_over(self) -> str:
        """Say which files of its folder nobody asked for or excluded; nothing where all were."""
        names = self.found.unmatched
        if not names or self.recipe.stdlib:
            return ""
        count = f"{len(names):,} files match" if len(names) > 1 else "1 file matches"
        return (
            f"{self.recipe.name}: {count} no pattern of data.source.include and"
            f" {'are' if len(names) > 1 else 'is'} passed over, such as {names[0]}"
        )

    @cached_property
    def rows(self) -> Any:
        """What `datasets` loaded, of a set of the Hub."""
        return open_hub(self.recipe, self.folder)

    @property
    def size(self) -> int:
        """Bytes of its files; rows of a set of the Hub."""
        if self.recipe.hub:
            return len(self.rows)
        return sum(file.path.stat().st_size for file in self.files)

    def identity(self) -> list[Any]:
        """Return what changes when anything in the source does, or what is read of it."""
        columns = list(self.recipe.columns)
        if self.recipe.hub:
            return [columns, self.recipe.hub, self.rows._fingerprint]
        found = [(file.name, file.format, file.path.stat()) for file in self.files]
        return [columns, *([n, form, s.st_size, s.st_mtime_ns] for n, form, s in found)]

    def records(self, most: int) -> Iterator[RawRecord]:
        """Yield what lies in it. most: bytes of a piece of a text file."""
        if self.recipe.hub:
            yield from read_hub(self.recipe, self.rows)
        for file in self.files:
            if file.format == "text":
                yield from read_text(file, most)
            elif file.format == "jsonl":
                yield from read_lines(file)
            else:
                yield from read_parquet(file)


def open_sources(recipe: DataRecipe, folder: Path) -> list[DataSource]:
    """Return the sources of a recipe; ValueError for one in which nothing matches."""
    sources = [DataSource(source, folder) for source in recipe.sources]
    for source in sources:
        if not source.recipe.hub and not source.files:
            patterns = list(source.recipe.include)
            raise ValueError(
                f"0 documents below {source.place} match data.include={patterns}; it"
                " takes one to train on and one to hold out"
            )
    return sources


def blocks(sources: Iterable[DataSource], most: int) -> Iterator[RecordBlock]:
    """Yield the blocks of all sources, one after another; none holds records of two."""
    for number, source in enumerate(sources):
        records, size, held = list[RawRecord](), 0, 0
        for record in source.records(most):
            records.append(record)
            size += record.size
            held += len(record.content) if isinstance(record.content, bytes) else 0
            if held >= _BYTES or len(records) >= _RECORDS:
                yield RecordBlock(number, records, source.recipe.columns, size)
                records, size, held = [], 0, 0
        if records:
            yield RecordBlock(number, records, source.recipe.columns, size)
