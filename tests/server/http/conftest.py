"""A server that is guarded, for a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from griffin.llm import LLM
from tests.server.live import Live, guarded


@pytest.fixture(scope="module")
def live(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with guarded(llm, tmp_path_factory.mktemp("guard") / "store") as live:
        yield live
