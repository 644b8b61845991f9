from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from griffin.sessions import Session, Store
from tests.sessions.fakes import CONFIG, fingerprint


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def session(store: Store) -> Iterator[Session]:
    with store.create("kitchen", fingerprint=fingerprint(), config=CONFIG) as opened:
        yield opened
