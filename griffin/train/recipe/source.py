"""The tables [[data.source]] of a recipe: where documents come from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from griffin.train.data.example import COLUMNS
from griffin.train.recipe.section import check_types, read_section

LINES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")  # of JSON
PARQUET = ".parquet"
# Every kind of file that is read, by its ending.
ALL_KINDS = tuple(f"**/*{ending}" for ending in (*LINES, PARQUET, ".txt"))
# What it was for runs that began before December 2026; they go on as if it were the same.
FEWER_KINDS = ("**/*.jsonl", "**/*.jsonl.gz", "**/*.parquet", "**/*.txt")


@dataclass(frozen=True, kw_only=True)
class SourceRecipe:
    """Say where documents of one kind come from.

    name              of the source, in the log and the run's folder: letters, digits, ".", "-" and
                      "_".
    path              a file, or the folder in which `include` starts; relative to the recipe's own.
    include, exclude  glob patterns over paths relative to `path`; `*` stops at a /, `**` does not.
                      `include` matches upper and lower case alike.
    hub               instead of `path`: a set of the Hub, or a folder of one, that the library
                      `datasets` loads; `subset` is its configuration, `split` its part.
    stdlib            instead of `path`: the standard library of the running Python.
    format            of the files: "text", a document each; "jsonl", a row a line (also .gz);
                      "parquet"; "auto": by the ending of each name.
    columns           the columns that are read, of COLUMNS; none: all of those that a row has.
    weight            its share of the run's rows beside those of the others; a stage's `weights`
                      replace it.
    epochs            how often it may be read at most; then the others have its share. 0: as often
                      as its weight asks for.
    seed              with [train]'s, of the order of its documents.
    """

    name: str = ""
    path: str = ""
    include: tuple[str, ...] = ALL_KINDS
    exclude: tuple[str, ...] = ()
    hub: str = ""
    subset: str = ""
    split: str = "train"
    stdlib: bool = False
    format: Literal["auto", "text", "jsonl", "parquet"] = "auto"
    columns: tuple[str, ...] = ()
    weight: float = 1.0
    epochs: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self, "data.source")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(
                "data.source.name is letters, digits, '.', '-' and '_', the first a letter or a"
                f" digit, not {self.name!r}"
            )
        given = [key for key in ("path", "hub", "stdlib") if getattr(self, key)]
        if len(given) != 1:
            raise ValueError(
                f"data.source {self.name!r} needs exactly one of path, hub and stdlib; it has"
                f" {' and '.join(given) or 'none'}"
            )
        for key in ("weight", "epochs", "seed"):
            if getattr(self, key) < 0:
                raise ValueError(
                    f"data.source {self.name!r}: {key} must be at least 0, not {getattr(self, key)}"
                )
        if not self.include:
            raise ValueError(
                f"data.source {self.name!r}: include is empty; name at least one pattern, such as"
                ' "**/*.txt"'
            )
        if unknown := sorted(set(self.columns) - set(COLUMNS)):
            raise ValueError(
                f"data.source {self.name!r}: columns names {', '.join(map(repr, unknown))}; what"
                f" can be read is {', '.join(COLUMNS)}"
            )


def read_sources(value: Any) -> str | tuple[SourceRecipe, ...]:
    """Return what `source` in [data] says, its tables read; ValueError for anything else."""
    if value in ("stdlib", "files"):
        return value
    kinds = (Mapping, SourceRecipe)
    if not isinstance(value, tuple) or not all(isinstance(table, kinds) for table in value):
        raise ValueError(
            "data.source must be tables, [[data.source]], or one of 'stdlib', 'files', not"
            f" {value!r}"
        )
    tables = tuple(
        table
        if isinstance(table, SourceRecipe)
        else read_section(SourceRecipe, table, "data.source")
        for table in value
    )
    names = [table.name for table in tables]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"each [[data.source]] needs a name of its own; here they are {names}")
    return tables
