"""One live server, and the official client before it, sync and async."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import griffin
from griffin.llm import LLM
from tests.support.live_server import Live, serving
from tests.support.openai_caller import Caller, calling
from tests.support.toy_folder import write_toy


@pytest.fixture(scope="package")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    return griffin.load(write_toy(tmp_path_factory.mktemp("contract") / "toy"), device="cpu")


@pytest.fixture(scope="package")
def live(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(llm, tmp_path_factory.mktemp("contract") / "store") as live:
        yield live


@pytest.fixture(scope="package", params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="package")
def client(kind: str, live: Live) -> Iterator[Caller]:
    with calling(kind, live) as caller:
        yield caller
