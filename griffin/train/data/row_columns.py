"""The rows that prompts stand in, kept beside their tokens: a reward may ask for any column."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

ROWS = "rows.jsonl"


class RowColumns(Sequence[Mapping[str, Any]]):
    """Rows as lines of JSON, memory-mapped; each is read when it is asked for."""

    def __init__(self, content: np.ndarray) -> None:
        """content: (bytes,) uint8, a line a row."""
        self._content = content
        self._ends = np.flatnonzero(content == ord("\n"))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Mapping[str, Any], ...]: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, Any] | tuple[Mapping[str, Any], ...]:
        if isinstance(index, slice):
            return tuple(self[place] for place in range(*index.indices(len(self))))
        place = range(len(self))[index]
        start = int(self._ends[place - 1]) + 1 if place else 0
        return json.loads(self._content[start : int(self._ends[place])].tobytes())


def open_rows(folder: Path, notes: Mapping[str, Any]) -> RowColumns:
    """Open the rows of a store of prompts; notes: the store's own.

    Raises ValueError if there are not as many as documents.
    """
    path = folder / ROWS
    there = path.exists() and path.stat().st_size
    rows = RowColumns(np.memmap(path, np.uint8, "r") if there else np.zeros(0, np.uint8))
    if len(rows) != notes["documents"]:
        raise ValueError(
            f"{path} holds {len(rows)} rows, its index says {notes['documents']}; delete the run's"
            " data folder to encode anew"
        )
    return rows
