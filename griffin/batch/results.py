"""The file of answers: a whole line a request, in the order of the requests."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

_BEGINS = b'{"id": "batch_req_'  # a line of `result_line`


class Results:
    """A file of JSON lines that only grows, and of which nobody else writes meanwhile.

    done: the custom_ids whose answers are there. A last line that a killed process left torn is cut
          off. Raises ValueError if another process has the file, or it holds anything else.
    """

    def __init__(self, path: Path) -> None:
        self.done: set[str] = set()
        try:
            self._stream = path.open("r+b" if path.exists() else "x+b")
        except OSError as error:
            raise ValueError(f"{path} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._take_up(path)
        except BlockingIOError:
            self._stream.close()
            raise ValueError(f"{path} is being written by another process") from None
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()

    def add(self, custom_id: str, result: dict[str, Any]) -> None:
        """Append a result. After a kill it is there whole, or its line is cut off."""
        self._stream.write(json.dumps(result, ensure_ascii=False).encode("utf-8", "replace"))
        self._stream.write(b"\n")
        self._stream.flush()
        self.done.add(custom_id)

    def _take_up(self, path: Path) -> None:
        whole = 0
        for number, line in enumerate(self._stream, 1):
            ours = line.startswith(_BEGINS) or _BEGINS.startswith(line)
            if ours and not line.endswith(b"\n"):
                break
            try:
                if not ours:
                    raise ValueError("somebody's text, or requests, which have custom_ids too")
                self.done.add(json.loads(line)["custom_id"])
            except (ValueError, LookupError, TypeError, RecursionError):
                raise ValueError(
                    f"{path}: line {number} is no result of a batch; name another file, or remove"
                    " this one"
                ) from None
            whole += len(line)
        self._stream.seek(whole)
        self._stream.truncate()
