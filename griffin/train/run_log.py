"""A run's log.jsonl: an entry a line, each there whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from griffin.train.files import write_text, writing


class RunLog:
    """The log of a run, open to append.

    path: the file. step: of the checkpoint that the run goes on from; lines beyond it are dropped.
    bad:  how many lines could not be read and were dropped: a crash tears the last one, a loss of
          power any of the last.
    """

    def __init__(self, path: Path, step: int) -> None:
        self._path, self.bad = path, 0
        if path.is_file():
            self._trim(step)
        with writing(path):
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def add(self, entry: dict[str, Any]) -> None:
        """Append an entry; OSError, and none of it is there, if the disk is full."""
        line = memoryview(json.dumps(entry).encode() + b"\n")
        done = 0
        try:
            with writing(self._path):
                while done < len(line):
                    done += os.write(self._file, line[done:])
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, os.fstat(self._file).st_size - done)
            raise

    def close(self) -> None:
        os.close(self._file)

    def _trim(self, step: int) -> None:
        """Keep the lines up to a step; count those that cannot be read."""
        kept = list[str]()
        *lines, torn = self._path.read_bytes().split(b"\n")
        self.bad += bool(torn)
        for line in lines:
            try:
                if int(json.loads(line)["step"]) <= step:
                    kept.append(line.decode())
            except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
                self.bad += 1
        write_text(self._path, "".join(f"{line}\n" for line in kept))
