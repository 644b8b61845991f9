"""The toy model and a server of it, for a module; one with other wishes has a `live` of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where `live` keeps sessions."""
    return tmp_path_factory.mktemp("live") / "store"


@pytest.fixture(scope="module")
def live(llm: LLM, folder: Path) -> Iterator[Live]:
    with serving(llm, folder) as live:
        yield live


@pytest.fixture
def http(live: Live) -> Iterator[httpx2.Client]:
    with live.http() as http:
        yield http


@pytest.fixture(scope="module")
def client(live: Live) -> OpenAI:
    return live.openai()


@pytest.fixture
def saying(llm, monkeypatch):
    """Return a way to make the model want to begin with a text; the constraint still has its
    say."""
    from griffin.engine import choosing

    wanted: list[int] = []

    class Saying(choosing.Sampler):
        step = 0

        def sample(self, logits):
            if self.step < len(wanted):
                logits = logits.clone()
                logits[wanted[self.step]] = 1e4
            self.step += 1
            return super().sample(logits)

    monkeypatch.setattr(choosing, "Sampler", Saying)
    return lambda text: wanted.extend(llm.tokenizer.encode(text, bos=False))
