"""The toy model and a server of it, for a module; one with other wishes has a `live` of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

import griffin
from griffin.llm import LLM
from tests.support.live_server import Live, serving
from tests.support.toy_folder import write_toy


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    return griffin.load(write_toy(tmp_path_factory.mktemp("model") / "toy"), device="cpu")


@pytest.fixture(scope="module")
def live(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(llm, tmp_path_factory.mktemp("live") / "store") as live:
        yield live


@pytest.fixture(scope="module")
def client(live: Live) -> OpenAI:
    return live.openai()
