"""Rows of parquet files and of sets of the Hub, through the libraries of the extra `data`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from griffin.foreign import shown
from griffin.train.data.example import COLUMNS
from griffin.train.data.files import RawRecord, SourceFile

if TYPE_CHECKING:  # what works on blocks needs no model, nor torch
    from griffin.train.recipe import SourceRecipe

_ROWS = 256  # read at a time


def read_parquet(file: SourceFile) -> Iterator[RawRecord]:
    """Yield a parquet file's rows, columns that are read alone; a torn file is a "bad" record."""
    arrow, parquet = _library("pyarrow", "parquet files"), _library("pyarrow.parquet", "they")
    number = 0
    try:
        with parquet.ParquetFile(file.path) as table:
            kept = _kept(table.schema_arrow.names)
            each = file.path.stat().st_size // max(table.metadata.num_rows, 1)
            for batch in table.iter_batches(_ROWS, columns=kept):
                for row in batch.to_pylist():
                    number += 1
                    yield RawRecord(f"{file.name}:{number}", "row", row, each)
    except (arrow.ArrowException, OSError, ValueError) as error:
        reason = f"the file cannot be read ({_line(error)})"
        yield RawRecord(f"{file.name}:{number + 1}", "bad", reason, 0)


def open_hub(source: SourceRecipe, folder: Path) -> Any:
    """Return a set of the Hub, or a folder of one, with the columns that are read alone.

    folder: where a relative path starts. Raises ValueError, in one line, if it cannot be loaded.
    """
    datasets = _library("datasets", "sets of the Hub")
    beside = folder / Path(source.hub).expanduser()
    name = str(beside) if beside.exists() else source.hub
    try:
        found = datasets.load_dataset(name, source.subset or None, split=source.split)
        return found.select_columns(_kept(found.column_names))
    except Exception as error:  # whatever the library, its scripts and the network raise
        raise ValueError(f"{source.hub}: cannot be loaded ({_line(error)})") from None


def read_hub(source: SourceRecipe, rows: Any) -> Iterator[RawRecord]:
    """Yield the rows of what `open_hub` opened."""
    for start in range(0, len(rows), _ROWS):
        columns = rows[start : start + _ROWS]
        for place in range(len(next(iter(columns.values())))):
            row = {name: values[place] for name, values in columns.items()}
            yield RawRecord(f"{source.hub}:{start + place + 1}", "row", row, 1)


def _kept(columns: list[str]) -> list[str]:
    kept = [name for name in columns if name in COLUMNS]
    if not kept:
        raise ValueError(f"columns are {shown(columns)}; what is read is {', '.join(COLUMNS)}")
    return kept


def _library(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(
            f"{what} need {name.partition('.')[0]}: pip install 'griffin-lm[data]'"
        ) from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
