"""One small vocabulary in Gemma's layout, in both of its files, and one with ChatML's turns."""

from __future__ import annotations

import pytest

from griffin.text import Tokenizer
from griffin.text.render_process import RenderProcess
from tests.support.gemma_tokenizer import Files, write_tokenizers


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_tokenizers(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="session")
def tokenizer(files: Files) -> Tokenizer:
    return Tokenizer.open(files.json)


@pytest.fixture(scope="session")
def kaggle(files: Files) -> Tokenizer:
    return Tokenizer.open(files.model)


@pytest.fixture(scope="session")
def chatml(files: Files) -> Tokenizer:
    return Tokenizer.open(files.chatml)


@pytest.fixture(scope="session", autouse=True)
def renderer() -> RenderProcess:
    """Hold the process that renders templates, which would else be started for each."""
    return RenderProcess.shared()
