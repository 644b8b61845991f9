"""The results of a proof, in a folder: each run is kept once it is done, and not done again."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from griffin.bench import machine
from griffin.train.files import write_json


class Runs:
    """What `out`/results.json holds of a proof: where it was measured, how, and the runs.

    Several processes may make different runs of one folder side by side: none loses another's.

    Command, commit and machine are those of the last call that made a run; seconds and hours are
    the processor's, all cores together.
    settings: what runs depend on besides their own keys; None is not known yet. Raises ValueError
              where the file is of other settings.
    """

    def __init__(self, out: Path, **settings: Any) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._path = out / "results.json"
        known = {name: value for name, value in settings.items() if value is not None}
        asked: dict[str, Any] = json.loads(json.dumps(known))
        self._here: dict[str, Any] = {
            "command": machine.command(),
            "commit": machine.commit(),
            "machine": machine.describe(),
        }
        self.found: dict[str, Any] = self._here | {"settings": asked, "hours": 0.0, "runs": []}
        self._look(asked)

    def _look(self, asked: Mapping[str, Any]) -> None:
        """Take over what the file holds, if it is of these settings."""
        if not self._path.exists():
            return
        before = json.loads(self._path.read_text(encoding="utf-8"))
        if any(before["settings"].get(name, value) != value for name, value in asked.items()):
            raise ValueError(
                f"{self._path} holds runs of {before['settings']}, not of {asked}; give another"
                " folder as --out"
            )
        self.found = before | {"settings": before["settings"] | dict(asked)}

    def get(self, key: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the run of a key, plain values both: as it is kept, or made now and kept."""
        for run in self.found["runs"]:
            if run.items() >= key.items():
                return run
        begun = time.process_time()
        made = {**key, **make()}
        made["seconds"] = round(time.process_time() - begun, 1)
        with _alone(self._path.parent):
            self._look(self.found["settings"])
            self.found |= self._here
            self.found["runs"].append(json.loads(json.dumps(made)))
            self.found["hours"] = round(sum(run["seconds"] for run in self.found["runs"]) / 3600, 3)
            write_json(self._path, self.found)
        return self.found["runs"][-1]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process has this folder, and have it."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)
