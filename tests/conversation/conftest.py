from __future__ import annotations

from pathlib import Path

import pytest

import griffin
from griffin.llm import LLM
from tests.support.toy_folder import write_toy


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("conversation") / "toy")


@pytest.fixture(scope="session")
def llm(folder: Path) -> LLM:
    return griffin.load(folder, device="cpu")
