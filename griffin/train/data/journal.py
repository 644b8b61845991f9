"""Files that grow together, a block at a time; after a kill they hold whole blocks, and go on."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from griffin.train.files import write_text, writing

JOURNAL = "journal.jsonl"
_EVERY = 1.0  # seconds between two moments from which work goes on


class Journal:
    """Append to files below a folder, so that they can be gone on with.

    blocks: how many there are. notes: what was last noted of them. known: the sizes of the files.
    A journal of another identity, or one that does not fit its files, is begun anew. Use it as a
    context manager: on leaving, what was appended is kept.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder, self._identity = folder, identity
        self._path = folder / JOURNAL
        self._files = dict[str, BinaryIO]()
        self.blocks, self.notes, self.known = 0, dict[str, Any](), dict[str, int]()
        folder.mkdir(parents=True, exist_ok=True)
        for line in reversed(self._lines()):
            if all(_size(folder / name) >= size for name, size in line["sizes"].items()):
                self.blocks, self.notes, self.known = line["blocks"], line["notes"], line["sizes"]
                break
        for name, size in self.known.items():
            os.truncate(folder / name, size)
        self._saved = time.monotonic()
        self._log = self._begin()

    def append(self, parts: Mapping[str, bytes], notes: dict[str, Any]) -> None:
        """Add a block: to each file, by its path below the folder, some bytes.

        Ended in the middle, by Ctrl-C say, it has added nothing: what is known changes at the end.
        """
        known = dict(self.known)
        for name, content in parts.items():
            path = self._folder / name
            with writing(path):
                if name not in self._files:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self._files[name] = path.open("ab" if name in self.known else "wb")
                self._files[name].write(content)
            known[name] = known.get(name, 0) + len(content)
        notes = json.loads(json.dumps(notes))
        self.blocks, self.notes, self.known = self.blocks + 1, notes, known
        if time.monotonic() - self._saved > _EVERY:
            self.save()

    def save(self) -> None:
        """Have everything on the disk before going on; OSError, naming the file, if it is full."""
        for name, file in self._files.items():
            with writing(self._folder / name):
                file.flush()
                os.fsync(file.fileno())
        with writing(self._path):
            self._log.write(json.dumps(self._line()).encode() + b"\n")
            self._log.flush()
            os.fsync(self._log.fileno())
        self._saved = time.monotonic()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None or not issubclass(kind, OSError):  # a full disk: what is known stands
                self.save()
        finally:
            for file in (*self._files.values(), self._log):
                with contextlib.suppress(OSError):  # of what is known nothing is left to write
                    file.close()

    def _begin(self) -> BinaryIO:
        """Open the journal to go on, with its beginning and the last line that fits alone."""
        lines: list[dict[str, Any]] = [{"identity": self._identity}]
        if self.blocks:
            lines.append(self._line())
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in lines))
        return self._path.open("ab")

    def _line(self) -> dict[str, Any]:
        return {"blocks": self.blocks, "sizes": self.known, "notes": self.notes}

    def _lines(self) -> list[dict[str, Any]]:
        """Return what can be gone on with, oldest first; nothing of another identity."""
        try:
            first, *lines = self._path.read_bytes().split(b"\n")
            if json.loads(first)["identity"] != self._identity:
                return []
        except (OSError, ValueError, KeyError, TypeError):
            return []
        found = []
        for line in lines:
            try:
                entry = json.loads(line)
                if {"blocks", "sizes", "notes"} <= entry.keys():
                    found.append(entry)
            except (ValueError, AttributeError):
                continue  # torn by a kill
        return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
