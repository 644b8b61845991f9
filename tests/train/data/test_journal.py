"""Files that grow together, however the work on them ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from griffin.train.data.journal import Journal


class Torn(Mapping[str, bytes]):
    """A block in whose middle somebody presses Ctrl-C for the second time."""

    def __getitem__(self, name: str) -> bytes:
        if name == "b.bin":
            raise KeyboardInterrupt
        return b"222"

    def __iter__(self) -> Iterator[str]:
        return iter(("a.bin", "b.bin"))

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize("before", [0, 1])
def test_a_block_that_is_interrupted_leaves_nothing(tmp_path: Path, before: int) -> None:
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path, "x") as journal:
        for _ in range(before):
            journal.append({"a.bin": b"111", "b.bin": b"11"}, {"seen": 1})
        journal.append(Torn(), {"seen": 2})
    with Journal(tmp_path, "x") as journal:
        assert journal.blocks == before
        assert journal.notes == ({"seen": 1} if before else {})
        journal.append({"a.bin": b"222", "b.bin": b"22"}, {"seen": 2})
    assert (tmp_path / "a.bin").read_bytes() == b"111" * before + b"222"
    assert (tmp_path / "b.bin").read_bytes() == b"11" * before + b"22"
