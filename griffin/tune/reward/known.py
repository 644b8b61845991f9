"""Which text of a reward function a run has learned from, from which step on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from griffin.train.files import write_json


def note_reward(path: Path, spec: str, digest: str, step: int) -> str:
    """Keep, in a run's file, that what comes after `step` is rewarded by a function; return what is
    to be said where the steps before had another, else "".

    spec: the recipe's name for it. digest: of the file that it is in; what that imports has no part
    in it. Raises ValueError if the file is there and cannot be read.
    """
    kept = [each for each in _read(path) if each["after_step"] < step]
    before = kept[-1]["digest"] if kept else digest
    if not kept or before != digest:
        kept.append({"after_step": step, "reward": spec, "digest": digest})
    write_json(path, kept)
    if before == digest:
        return ""
    return (
        f"{spec} is not what it was when step {step} was done: the run goes on with what it is now,"
        f" and its end is not that of a run with either ({path} says which step learned from which)"
    )


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [each for each in found if isinstance(each["after_step"], int) and each["digest"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not readable ({error}); it says which reward a step learned from: remove it"
            " to go on without"
        ) from error
