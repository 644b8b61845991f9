from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from griffin.sessions import Session, Store
from tests.support.fake_states import CONFIG, fingerprint


@pytest.fixture(params=[False, True], ids=["local", "network"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store, once as on a local disk, once as for several machines."""
    with Store(tmp_path / "store", network=request.param) as opened:
        yield opened


@pytest.fixture
def session(store: Store) -> Iterator[Session]:
    with store.create("kitchen", fingerprint=fingerprint(), config=CONFIG) as opened:
        yield opened
