"""What a model has answered so far, in a file: a run that was killed goes on where it ended."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any


class AnswerLog:
    """Answers by the keys of what was asked, in a file of JSON lines.

    identity: names the model; a file of another one is a ValueError. So is one that another process
              writes, and one that holds anything else. A last line that a killed process left torn
              is cut off.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._found = dict[str, Any]()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("a+b")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._take_up(path, identity)
        except BlockingIOError:
            self._stream.close()
            raise ValueError(f"{path} is being written by another process") from None
        except BaseException:
            self._stream.close()
            raise

    def __len__(self) -> int:
        return len(self._found)

    def __enter__(self) -> AnswerLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()

    def get(self, key: str) -> Any:
        """Return an answer, None if there is none yet."""
        return self._found.get(key)

    def add(self, key: str, answer: Any) -> None:
        """Keep an answer. After a kill it is there whole, or not at all."""
        self._write([key, answer])
        self._found[key] = answer

    def _write(self, line: Any) -> None:
        self._stream.write(json.dumps(line).encode() + b"\n")
        self._stream.flush()

    def _take_up(self, path: Path, identity: str) -> None:
        self._stream.seek(0)
        whole = 0
        for number, line in enumerate(self._stream, 1):
            if not line.endswith(b"\n"):
                break
            try:
                key, answer = json.loads(line)
            except (ValueError, TypeError):
                raise ValueError(
                    f"{path}: line {number} is no answer of an evaluation; name another file, or"
                    " remove this one"
                ) from None
            if number == 1 and answer != identity:
                raise ValueError(
                    f"{path} holds the answers of another model ({answer}; this one is {identity});"
                    " name another file, or remove this one"
                )
            self._found[key] = answer
            whole += len(line)
        self._stream.truncate(whole)
        if not whole:
            self._write(["", identity])
        self._found.pop("", None)
