"""Which function gives the rewards: "FILE.py:function", or the name of one that comes with us."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from griffin.foreign import read_bytes

BUNDLED = ("digits", "similarity", "exact")  # functions of tasks.py


@dataclass(frozen=True)
class RewardFile:
    """A Python file as it was when it was read, and the name of a function in it.

    Later processes run the same text, so a file that is edited meanwhile changes no reward.
    """

    spec: str
    path: Path
    text: bytes
    function: str

    @property
    def digest(self) -> str:
        """SHA-256 of the file's text, 64 hexadecimal digits."""
        return hashlib.sha256(self.text).hexdigest()


def read_file(spec: str) -> RewardFile:
    """Read what "FILE.py:function" or one of BUNDLED names; nothing of it is run.

    Raises ValueError for another form, and for a file that cannot be read.
    """
    if spec in BUNDLED:
        file, name = str(Path(__file__).with_name("tasks.py")), spec
    else:
        file, _, name = spec.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise ValueError(
            f"a reward is FILE.py:function, or one of {', '.join(BUNDLED)}; not {spec!r}"
        )
    path = Path(file).expanduser().absolute()
    return RewardFile(spec, path, read_bytes(path), name)
