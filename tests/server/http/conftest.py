"""A server that is guarded, for a module; and one that does not wait for long, for a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from griffin.llm import LLM
from griffin.server.http.keys import Keys
from griffin.server.settings import Settings
from tests.support.live_server import ALICE, Live, guarded, serving


@pytest.fixture(scope="module")
def live(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with guarded(llm, tmp_path_factory.mktemp("guard") / "store") as live:
        yield live


@pytest.fixture
def hasty(llm: LLM) -> Iterator[Live]:
    settings = Settings(body_seconds=0.3, header_seconds=1, send_seconds=0.5)
    with serving(llm, keys=Keys([ALICE]), settings=settings) as live:
        yield live
