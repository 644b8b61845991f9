"""Tokenizers of both kinds, and the toy model."""

from __future__ import annotations

from pathlib import Path

import pytest

import griffin
from griffin.grammar import Grammars
from griffin.llm import LLM
from griffin.text import Tokenizer
from tests.support.gemma_tokenizer import Files, write_tokenizers
from tests.support.toy_folder import write_toy


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_tokenizers(tmp_path_factory.mktemp("grammar"))


@pytest.fixture(scope="session")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    """A random model; it has more embeddings than its tokenizer has ids."""
    return griffin.load(write_toy(tmp_path_factory.mktemp("grammar") / "toy"), device="cpu")


@pytest.fixture(scope="session", params=["nano", "json", "model"])
def grammars(request: pytest.FixtureRequest, files: Files) -> Grammars:
    """Of the bundled tokenizer, and of Gemma's layout in both of its files: bytes, spaces, control
    tokens."""
    nano = Path(str(griffin.__file__)).parent / "data" / "nano"
    folder = nano if request.param == "nano" else getattr(files, request.param)
    return Grammars(Tokenizer.open(folder))
